"""The shim and the sample models run on a host's own Python, from the wheels of the real lock and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.integration


def host_python() -> str:
    """Debian's own Python where it is new enough, which a venv's packages must not lean on; else what made ours."""
    for candidate in ("/usr/bin/python3", str(Path(sys.base_prefix, "bin", "python3"))):
        if Path(candidate).exists() and minor_of(candidate) >= 11:
            return candidate
    raise AssertionError("there is no Python 3.11 or newer beside the venv's")


def minor_of(python: str) -> int:
    return int(subprocess.check_output([python, "-c", "import sys; print(sys.version_info.minor)"]))


def call(folder: Path, module: str, interpreter: str, **arguments: Any) -> dict[str, Any]:
    """Run a module through Ansible, on this machine."""
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local", "-m", module]
    command += ["-a", json.dumps(arguments), "-e", json.dumps({"ansible_python_interpreter": interpreter})]
    environment = {
        **os.environ,
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "ansible" / "tmp"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return dict(json.loads(ran.stdout[ran.stdout.index("{") :]))


def test_shim_and_models_run_from_the_real_wheelhouse(tmp_path: Path) -> None:
    python = host_python()
    order = {
        "package": str(ROOT / "python"),
        "lock": str(ROOT / "requirements.lock"),
        "requirements": [str(ROOT / "examples" / "requirements-models.txt")],
        "extras": ["zmq"],
        "python_version": f"3.{minor_of(python)}",
        "architecture": os.uname().machine,
        "cache": str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "outrider", "wheelhouses")),
    }
    made = call(tmp_path, "wheelhouse", sys.executable, **order)
    again = call(tmp_path, "wheelhouse", sys.executable, **order)
    assert (again["changed"], again["digest"]) == (False, made["digest"])
    assert not [package for package in made["packages"] if package.startswith(("ansible", "pytest", "pip=="))]

    place = {"venvs_folder": str(tmp_path / "venvs"), "link": str(tmp_path / "venv"), "python": python}
    venv = call(tmp_path, "python_venv", python, archive=made["archive"], digest=made["digest"], **place)
    programs = tmp_path / "venv" / "bin"
    assert "--check-config" in subprocess.check_output([programs / "outriderd", "--help"], text=True)
    asked = "import onnxruntime, zmq, outrider, sys; print(outrider.__file__, sys.flags.isolated)"
    found = subprocess.check_output([venv["python"], "-I", "-c", asked], text=True)
    assert found.startswith(str(tmp_path / "venvs" / made["digest"]))
    assert call(tmp_path, "python_venv", python, archive="/gone", digest=made["digest"], **place)["changed"] is False
