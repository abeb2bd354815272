"""Whether a service runs with its present files is told from what its unit wrote, as the shell computes it."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[3] / "roles/consul/module_utils/applied.py"


@pytest.fixture
def applied() -> ModuleType:
    spec = importlib.util.spec_from_file_location("applied", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_digest_is_the_one_that_the_unit_writes(applied: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    inputs = [str(tmp_path / "one"), str(tmp_path / "two")]
    command = f"sha256sum {' '.join(inputs)} | sha256sum > {tmp_path / 'applied'}"
    subprocess.run(["sh", "-c", command], check=True)
    assert applied.is_applied(str(tmp_path / "applied"), inputs)
    assert not applied.is_applied(str(tmp_path / "applied"), reversed(inputs))
    (tmp_path / "two").write_text("changed")
    assert not applied.is_applied(str(tmp_path / "applied"), inputs)
    assert not applied.is_applied(str(tmp_path / "missing"), inputs)


def test_what_was_written_for_another_start_says_nothing(applied: ModuleType, tmp_path: Path) -> None:
    """A unit that was tampered with and started leaves the file as the right one had written it."""
    (tmp_path / "one").write_text("one")
    inputs = [str(tmp_path / "one")]
    file = tmp_path / "applied"
    file.write_text(f"{applied.digest(inputs)}\n4d83\n")
    assert applied.is_applied(str(file), inputs, "4d83")
    assert not applied.is_applied(str(file), inputs, "90aa")
    file.write_text(f"{applied.digest(inputs)}\n")
    assert not applied.is_applied(str(file), inputs, "4d83")
    file.write_text("")
    assert not applied.is_applied(str(file), inputs)
