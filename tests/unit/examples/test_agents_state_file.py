"""State on disk: whole or not at all, and never shown before it is there."""

import json
from pathlib import Path
from typing import Any

import pytest

from state_file import KEPT_ITEMS, StateFile
from wire import Refused


def test_it_counts_keeps_the_last_items_and_comes_back(tmp_path: Path) -> None:
    store = StateFile(str(tmp_path))
    for number in range(KEPT_ITEMS + 5):
        store.add({"item": number})
    assert store.add({"add": 10})["counter"] == KEPT_ITEMS + 15
    again = StateFile(str(tmp_path)).snapshot()
    assert again == store.snapshot()
    assert again["items"] == list(range(5, KEPT_ITEMS + 5))
    assert again["durable"] is True


def test_what_a_crash_left_beside_is_not_read(tmp_path: Path) -> None:
    StateFile(str(tmp_path)).add({"item": "good"})
    (tmp_path / "state.json.tmp").write_text('{"counter": 9')
    store = StateFile(str(tmp_path))
    assert store.snapshot()["counter"] == 1
    assert store.add({})["counter"] == 2


@pytest.mark.parametrize("text", ["", '{"counter": 9', "[]", '{"counter": "x", "items": []}'])
def test_a_damaged_file_is_named_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"state\.json"):
        StateFile(str(tmp_path))
    assert (tmp_path / "state.json").read_text() == text


def test_what_cannot_be_written_is_not_shown(tmp_path: Path) -> None:
    store = StateFile(str(tmp_path))
    store.add({"item": "kept"})
    before = store.snapshot()
    (tmp_path / "state.json.tmp").mkdir()  # stops root too, which no permission does
    with pytest.raises(Refused) as refused:
        store.add({"item": "lost"})
    assert refused.value.status == 507
    assert store.snapshot() == before
    assert json.loads((tmp_path / "state.json").read_text())["items"] == ["kept"]


def test_without_a_folder_it_lives_in_memory() -> None:
    store = StateFile("")
    assert store.add({"item": 1})["durable"] is False
    assert store.snapshot()["counter"] == 1


@pytest.mark.parametrize("document", [{"add": "1"}, {"add": True}, {"add": 1.5}, {"add": 10**10}, {"item": "x" * 5000}])
def test_wrong_input_is_refused(document: dict[str, Any]) -> None:
    store = StateFile("")
    with pytest.raises(Refused):
        store.add(document)
    assert store.snapshot()["counter"] == 0
