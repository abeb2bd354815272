"""The lab leaves nothing behind, however it ends, and its hosts start from an image of today's recipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hosts.fleet import until
from hosts.lab import image as images
from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

STARTING = ("lab.json", "hosts/lab2/pid")  # what is there once a start has begun, and once hosts boot


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, because ssh's sockets are in it.
    with TemporaryDirectory(prefix="lab") as name:
        yield Path(name) / "lab"
        Lab(Path(name) / "lab").down()


def started(folder: Path) -> subprocess.Popen[bytes]:
    """`make lab-up` of two hosts, under way."""
    command = [sys.executable, "-m", "hosts.lab", "--folder", str(folder), "up", "--hosts", "2"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests")}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def traces(folder: Path, bridge: str) -> list[str]:
    """Processes, mounts, links and files of it."""
    found = [str(folder)] if folder.exists() else []
    if Path(f"/sys/class/net/{bridge}").exists():
        found.append(bridge)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes() + (process / "mounts").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("moment", STARTING)
def test_ctrl_c_leaves_nothing(folder: Path, moment: str) -> None:
    starting = started(folder)
    until(lambda: (folder / moment).exists(), 30)
    bridge = str(Lab(folder).read()["bridge"])
    starting.send_signal(signal.SIGINT)
    starting.communicate(timeout=60)
    assert starting.returncode != 0
    until(lambda: not traces(folder, bridge), 10, lambda: str(traces(folder, bridge)))


def test_after_a_crash_down_leaves_nothing(folder: Path) -> None:
    starting = started(folder)
    until(lambda: (folder / STARTING[-1]).exists(), 30)
    bridge = str(Lab(folder).read()["bridge"])
    starting.kill()
    starting.communicate()
    assert traces(folder, bridge)
    Lab(folder).down()
    until(lambda: not traces(folder, bridge), 10, lambda: str(traces(folder, bridge)))


def test_an_image_is_built_when_it_is_missing_and_a_stale_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built: list[Path] = []
    monkeypatch.setattr(images, "_build", lambda root, log: (built.append(root), root.mkdir()))
    stale = tmp_path / "outrider" / "lab" / "0123456789abcdef"
    stale.mkdir(parents=True)
    (stale / ".complete").touch()
    root = images.image()
    assert (images.image(), built) == (root, [root])
    assert not stale.exists()
    (root.parent / ".complete").unlink()  # as a build that was killed leaves it
    assert (images.image(), built) == (root, [root, root])
