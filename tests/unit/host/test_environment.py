"""A host's kernel, Python, GPU and driver are told as they are, and what is not known is not made up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from outrider.host.environment import environment

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)\n"


def driver(folder: Path, version: str, *models: str) -> Path:
    (folder / "version").write_text(version)
    for index, model in enumerate(models):
        (folder / f"gpus/0000:0{index}:00.0").mkdir(parents=True)
        (folder / f"gpus/0000:0{index}:00.0/information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 55\n")
    return folder


def test_a_host_without_a_gpu_says_so(tmp_path: Path) -> None:
    found = environment(tmp_path / "missing")
    assert found["gpu"] == found["driver"] == "none"
    assert found["kernel"] == os.uname().release
    assert found["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.mark.parametrize(("version", "said"), [(CLOSED, "535.104.05"), (OPEN, "570.86.15")])
def test_driver_and_models_are_read_from_the_driver(tmp_path: Path, version: str, said: str) -> None:
    found = environment(driver(tmp_path, version, "NVIDIA L4", "NVIDIA H200"))
    assert (found["driver"], found["gpu"]) == (said, "NVIDIA H200, NVIDIA L4")


def test_what_the_driver_does_not_tell_is_absent(tmp_path: Path) -> None:
    assert environment(tmp_path).keys() == {"kernel", "python"}
    assert "driver" not in environment(driver(tmp_path, "another form\n", "NVIDIA L4"))
