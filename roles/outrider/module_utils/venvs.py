"""Virtual environments on a host, named by the digest of the wheels that are in them; standard library only.

They lie beside one another and a link leads to the current one. Scripts in a venv name their interpreter by path, so
it is built in its place, and counts as there only once it has its mark.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".complete"
WHEEL = re.compile(r"[\w.+!-]+\.whl")
PIP = ["--isolated", "--no-index", "--no-deps", "--no-compile", "--quiet", "--disable-pip-version-check"]
# Run at each start of the venv's Python. Started through the link, a process would import from the next venv as soon as
# the link leads there.
PINNED = """import os, sys
link, venv = sys.prefix + os.sep, os.path.realpath(sys.prefix) + os.sep
sys.path[:] = [path.replace(link, venv, 1) if path.startswith(link) else path for path in sys.path]
sys.executable = sys.executable.replace(link, venv, 1)
sys.prefix = sys.exec_prefix = venv.rstrip(os.sep)
"""


class VenvError(Exception):
    """A venv could not be made. The message says why."""


@contextmanager
def alone(venvs: Path) -> Iterator[None]:
    """Two runs at once wait for each other."""
    venvs.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = os.open(venvs, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_complete(venv: Path) -> bool:
    """True if it was built to the end and its interpreter is still on the host."""
    return (venv / MARK).exists() and (venv / "bin" / "python").exists()


def linked(link: Path) -> Path | None:
    """Where the link leads; None if there is none. Raises VenvError if something else is there."""
    if link.is_symlink():
        return Path(os.readlink(link))
    if link.exists():
        raise VenvError(f"{link}: is no symbolic link; move it away")
    return None


def build(venv: Path, archive: Path, python: str) -> None:
    """Make the venv from the archive's wheels, complete or not at all. Raises VenvError."""
    shutil.rmtree(venv, ignore_errors=True)  # what an interrupted run left
    try:
        with tempfile.TemporaryDirectory(prefix=".wheels-", dir=venv.parent) as scratch:
            _install(venv, _unpacked(archive, venv.name, Path(scratch)), python)
        packages = next(venv.glob("lib/python3*/site-packages"))
        (packages / "_pinned_venv.py").write_text(PINNED)
        (packages / "_pinned_venv.pth").write_text("import _pinned_venv\n")
        # Agents may not write here and would compile at each start (0.25 s each, measured; 3 s here). With one process:
        # two take no less time, and other hosts may be on the same cores. What does not compile is not meant to run.
        _run([str(venv / "bin" / "python"), "-I", "-m", "compileall", "-q", str(packages)], may_fail=True)
        os.sync()
        (venv / MARK).touch()
    except (OSError, tarfile.TarError) as error:
        raise VenvError(f"{venv}: {error}") from error
    finally:
        if not (venv / MARK).exists():
            shutil.rmtree(venv, ignore_errors=True)


def _unpacked(archive: Path, digest: str, folder: Path) -> list[Path]:
    """The archive's wheels in a folder. Raises VenvError unless they are those that the digest was made of."""
    lines = []
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and WHEEL.fullmatch(member.name) else None
            if content:
                data = content.read()
                (folder / member.name).write_bytes(data)
                lines.append(f"{hashlib.sha256(data).hexdigest()}  {member.name}\n")
    found = hashlib.sha256("".join(lines).encode()).hexdigest()
    if found != digest:
        raise VenvError(f"{archive}: its wheels have digest {found}, not {digest}")
    return sorted(folder.iterdir())


def _install(venv: Path, wheels: list[Path], python: str) -> None:
    pips = [wheel for wheel in wheels if wheel.name.startswith("pip-")]
    if not pips:
        raise VenvError("the archive has no pip to install its wheels with")
    _run([python, "-I", "-m", "venv", "--without-pip", str(venv)])
    others = [str(wheel) for wheel in wheels if wheel not in pips]
    _run([str(venv / "bin" / "python"), "-I", f"{pips[0]}/pip", "install", *PIP, *others])


def _run(command: list[str], *, may_fail: bool = False) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode and not may_fail:
        said = [line for line in ran.stderr.splitlines() if not line.startswith("WARNING")]
        raise VenvError(f"{' '.join(command[:4])} failed:\n" + "\n".join(said[-12:]))


def switch(link: Path, venv: Path) -> None:
    """Lead the link to the venv in one step. Both count as used now."""
    for place in (linked(link), venv):
        if place and (place / MARK).exists():
            os.utime(place / MARK)
    link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}-new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(venv)
    fresh.replace(link)


def prune(venvs: Path, keep: int) -> list[str]:
    """Remove all but the `keep` venvs that were linked last and those in use. Returns the names removed."""
    complete = sorted(venvs.glob(f"*/{MARK}"), key=lambda mark: mark.stat().st_mtime_ns)
    kept = {mark.parent.name for mark in complete[-keep:]} | in_use(venvs)
    removed = [place for place in venvs.iterdir() if place.name not in kept]
    for place in removed:
        (place / MARK).unlink(missing_ok=True)  # first: what is half removed is not there
        shutil.rmtree(place, ignore_errors=True)
    return sorted(place.name for place in removed)


def in_use(venvs: Path) -> set[str]:
    """Names of the venvs that a process was started from or has a library of; other users' processes for root only."""
    inside = re.compile(re.escape(f"{venvs}/") + r"([^/\0\n]+)/")
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "maps"):
            with suppress(OSError):
                found.update(inside.findall((process / file).read_text(errors="replace")))
    return found
