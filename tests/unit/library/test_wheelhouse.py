"""One archive holds all wheels of a project's venv; the same sources give the same one, made once."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tiny_wheels import installed, module_runner, tiny_wheel

from unit.library.as_ansible import Run

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny_shim"
version = "0.1"
dependencies = ["tiny-leaf"]
[tool.setuptools]
packages = ["tiny_shim"]
package-data = {tiny_shim = ["py.typed"]}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return module_runner("wheelhouse", capsys, monkeypatch)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and nowhere else."""
    installed(tmp_path / "site", "tiny_leaf", "1.5")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name, version in (("tiny_leaf", "1.5"), ("tiny_leaf", "1.6"), ("pip", "26.3")):
        tiny_wheel(tmp_path / "shop", name, version, {f"{name}.py": ""})
    settings = {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "shop")}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return tmp_path / "shop"


@pytest.fixture
def order(tmp_path: Path, shop: Path) -> dict[str, Any]:
    project = tmp_path / "project"
    (project / "tiny_shim").mkdir(parents=True)
    (project / "tiny_shim" / "__init__.py").write_text("HERE = 1\n")
    (project / "tiny_shim" / "py.typed").touch()
    (project / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "lock").write_text("tiny-leaf==1.5\ntiny-other==1\n")
    names = {"package": project, "lock": tmp_path / "lock", "cache": tmp_path / "cache"}
    return {**{name: str(path) for name, path in names.items()}, "python_version": "3.11"}


def content(archive: str) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: data.read() for member in tar if (data := tar.extractfile(member))}


def close(shop: Path) -> None:
    for wheel in shop.iterdir():
        wheel.unlink()


def test_the_archive_has_all_wheels_and_is_named_by_them(run: Run, order: dict[str, Any]) -> None:
    made = run(**order)
    assert made["changed"] is True
    assert made["packages"] == ["tiny-leaf==1.5", "tiny-shim==0.1"]
    held = content(made["archive"])
    about = json.loads(held.pop("manifest.json"))
    assert [name.split("-")[0] for name in held] == ["pip", "tiny_leaf", "tiny_shim"]
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in held.items())
    assert made["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    assert about["packages"] == made["packages"]
    assert made["bytes"] == Path(made["archive"]).stat().st_size
    assert Path(made["archive"]).name == f"{made['digest']}.tar"


def test_the_second_call_changes_and_fetches_nothing(run: Run, order: dict[str, Any], shop: Path) -> None:
    first = run(**order)
    close(shop)
    assert run(**order) == {**first, "changed": False, "diff": {}, "invocation": first["invocation"]}


def test_the_same_sources_give_the_same_archive_wherever(run: Run, order: dict[str, Any], tmp_path: Path) -> None:
    first = run(**order)
    for path in Path(order["package"], "tiny_shim").iterdir():
        os.utime(path, (1e9, 1e9))
        path.chmod(0o600)
    for left_over in ("build/lib/tiny_shim/old.py", "tiny_shim/__pycache__/x.pyc", "tiny_shim.egg-info/SOURCES.txt"):
        path = Path(order["package"], left_over)
        path.parent.mkdir(parents=True)
        path.write_text("left over")
    assert run(**order)["changed"] is False
    before = os.umask(0o077)
    try:
        second = run(**{**order, "cache": str(tmp_path / "elsewhere")})
    finally:
        os.umask(before)
    assert second["changed"] is True
    assert Path(second["archive"]).read_bytes() == Path(first["archive"]).read_bytes()


def test_other_sources_give_another_archive_and_only_they_are_built(
    run: Run, order: dict[str, Any], shop: Path
) -> None:
    first = run(**order)
    close(shop)
    Path(order["package"], "tiny_shim", "__init__.py").write_text("HERE = 2\n")
    predicted = run(check=True, **order)
    assert predicted["changed"] is True
    assert not Path(predicted["archive"]).exists()
    second = run(**order)
    assert second["digest"] == predicted["digest"] != first["digest"]
    assert Path(first["archive"]).exists()


def test_check_mode_fetches_and_keeps_nothing(run: Run, order: dict[str, Any]) -> None:
    predicted = run(check=True, **order)
    assert predicted["changed"] is True
    assert predicted["digest"] == "not built yet"
    assert predicted["packages"] == ["tiny-leaf==1.5"]
    assert not Path(order["cache"]).exists()
    made = run(**order)
    assert run(check=True, **order)["digest"] == made["digest"]
    assert run(check=True, **order)["changed"] is False


def test_what_cannot_be_fetched_is_named_and_nothing_is_kept(run: Run, order: dict[str, Any], shop: Path) -> None:
    (shop / "tiny_leaf-1.5-py3-none-any.whl").unlink()
    failed = run(**order)
    assert failed["failed"]
    assert "No matching distribution found for tiny-leaf==1.5" in failed["msg"]
    assert [path for path in Path(order["cache"]).rglob("*") if path.name != "wheels"] == []


def test_a_damaged_archive_is_made_again(run: Run, order: dict[str, Any]) -> None:
    made = run(**order)
    whole = Path(made["archive"]).read_bytes()
    Path(made["archive"]).write_bytes(whole[:1000])
    again = run(**order)
    assert again["changed"] is True
    assert Path(again["archive"]).read_bytes() == whole


def test_the_cache_keeps_what_was_used_last(run: Run, order: dict[str, Any]) -> None:
    cache = Path(order["cache"])
    for number in range(5):
        for path in (cache / f"{number}.tar", cache / "wheels" / f"{number}" / "x.whl", cache / f"{number}.json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path.parent if path.suffix == ".whl" else path, (1e9 + number, 1e9 + number))
    made = run(**order)
    assert {path.name for path in cache.glob("*.tar")} == {"2.tar", "3.tar", "4.tar", Path(made["archive"]).name}
    assert len(list(cache.glob("wheels/*"))) == 4
    assert len(list(cache.glob("*.json"))) == 1
