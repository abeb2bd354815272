"""Tiny wheels and what an index would say of them, so that tests of wheels need no network."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

from unit.library.as_ansible import ROOT, Run, load, run_module


def module_runner(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """What runs a module of library/ as Ansible would, and returns what it prints."""
    utilities = [*ansible.module_utils.__path__, str(ROOT / "roles" / "outrider" / "module_utils")]
    monkeypatch.setattr(ansible.module_utils, "__path__", utilities)
    module = load(name)

    def call(check: bool = False, **arguments: Any) -> dict[str, Any]:
        return run_module(module, {**arguments, "_ansible_check_mode": check}, capsys)

    return call


def tiny_wheel(folder: Path, name: str, version: str, files: dict[str, str], entry: str = "") -> Path:
    """A wheel with these files; `entry` is a line of entry_points.txt for a console script."""
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tiny\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{entry}\n"
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return wheel


def real_pip(folder: Path) -> Path:
    """The pip of this interpreter, as the wheel that it came from."""
    pip = metadata.distribution("pip")
    wheel = folder / f"pip-{pip.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in pip.files or []:
            if file.suffix != ".pyc" and ".." not in file.parts:
                archive.write(str(pip.locate_file(file)), str(file))
    return wheel


def tar_of(wheels: list[Path], folder: Path) -> tuple[Path, str]:
    """An archive as the module wheelhouse makes it, and its digest."""
    ordered = sorted(wheels, key=lambda wheel: wheel.name)
    lines = "".join(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n" for wheel in ordered)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    with tarfile.open(folder / f"{digest}.tar", "w") as tar:
        for wheel in ordered:
            tar.add(wheel, wheel.name)
    return folder / f"{digest}.tar", digest


def installed(folder: Path, name: str, version: str, *needs: str) -> None:
    """As if this were installed in `folder`: its metadata alone."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in needs)]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
