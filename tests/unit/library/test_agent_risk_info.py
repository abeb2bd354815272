"""The module agent_risk_info: arguments in, risks or one error out, as Ansible sees them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from outrider.host.shim_client import ShimClient
from outrider.migration.risk.assess import assess
from outrider.migration.risk.observed import Question
from outrider.migration.risk.survey import Asked
from unit.library.as_ansible import Run, load, run_module
from unit.migration.risk_world import calm, published


@pytest.fixture
def module() -> ModuleType:
    return load("agent_risk_info")


@pytest.fixture
def run(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(**arguments: Any) -> dict[str, Any]:
        return run_module(module, arguments, capsys)

    return call


@pytest.mark.parametrize("check", [False, True])
def test_options_become_a_question_and_the_answer_is_plain(
    run: Run, module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: bool
) -> None:
    asked: list[Any] = []

    def of_running(consul: Any, shim: ShimClient, what: Asked, **more: Any) -> list[Any]:
        asked.extend((consul.address.port, shim.path, what, more))
        return [assess(published(tmp_path), calm(), Question("Web"))]

    monkeypatch.setattr(module, "of_running", of_running)
    found = run(agent="Web", to="two", new="/srv/next", readable=True, consul_port=8501, _ansible_check_mode=check)
    assert asked == [
        8501,
        Path("/run/outrider/outriderd.sock"),
        Asked("Web", "two", None, Path("/srv/next"), True),
        {"releases": Path("/opt/outrider/releases"), "prometheus": ""},
    ]
    assert found["changed"] is False
    [risk] = found["risks"]
    assert (risk["agent"], risk["band"]["strategy"]) == ("Web", "direct")
    assert {"key", "points", "evidence", "measured"} <= risk["contributions"][0].keys()


def test_without_consul_it_fails_with_one_message(run: Run) -> None:
    found = run(consul_port=1)
    assert found["failed"] is True
    assert "127.0.0.1:1" in found["msg"]
