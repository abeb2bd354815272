"""`make setup` refuses early what would fail late, and says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]


def setup(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup of a checkout that holds only what it reads."""
    for name in ("scripts/setup", "requirements.lock", "python/pyproject.toml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    command = [str(checkout / "scripts" / "setup")]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_a_path_too_long_for_unix_sockets_is_refused(tmp_path: Path) -> None:
    done = setup(tmp_path / ("long" * 20))
    assert done.returncode == 1
    assert "too long for Unix sockets" in done.stderr
    assert "Move the checkout" in done.stderr


def test_a_path_that_would_break_path_lists_is_refused() -> None:
    short = Path(tempfile.mkdtemp(prefix="or:"))
    try:
        done = setup(short)
    finally:
        shutil.rmtree(short)
    assert done.returncode == 1
    assert "spaces are welcome" in done.stderr


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    """The tools that setup needs are on PATH, and no Python but one that says that it is old."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "wc", "flock", "cat", "sha256sum", "cut", "rm", "grep", "date"):
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    old = tools / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    checkout = Path(tempfile.mkdtemp(prefix="or"))
    try:
        done = setup(checkout, PATH=str(tools), PYTHON="python3")
        assert not (checkout / ".venv").exists()
    finally:
        shutil.rmtree(checkout)
    assert done.returncode == 1
    assert "Python 3.11 or newer with its venv module is needed; python3 is Python 3.9.2" in done.stderr
