"""Wheels by pip, for hosts of another Python or architecture than this machine's; nothing here names an index."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from outrider.errors import ReleaseError

# The oldest glibc that hosts may have is 2.34, RHEL 9's; Debian 12 has 2.36. Newest first: pip takes the first match.
PLATFORMS = [f"manylinux_2_{minor}" for minor in range(34, 4, -1)]
OLD_PLATFORMS = ("manylinux2014", "manylinux2010", "manylinux1")
# The first moment that a zip file can express.
EPOCH = "315532800"
LEFT_OUT = ("__pycache__", "*.pyc", "*.egg-info", ".*")


def fetch(packages: list[str], python_version: str, architecture: str, place: Path) -> None:
    """Wheels of all `packages` (name==version) into the folder `place`, complete or not at all. Raises ReleaseError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=place.parent) as name:
        platforms = [f"--platform={platform}_{architecture}" for platform in (*PLATFORMS, *OLD_PLATFORMS)]
        target = [f"--python-version={python_version}", "--implementation=cp", *platforms]
        scratch = Path(name, "wheels")
        _pip("download", "--only-binary=:all:", *target, f"--dest={scratch}", *packages)
        try:
            scratch.rename(place)
        except OSError:
            if not place.is_dir():  # another run was quicker, with the very same content
                raise


def build(sources: Path, place: Path) -> Path:
    """The wheel of copied sources, the same for the same ones. Raises ReleaseError if it is not pure Python."""
    _pip("wheel", "--no-index", "--no-build-isolation", "--no-cache-dir", f"--wheel-dir={place}", str(sources))
    (wheel,) = place.glob("*.whl")
    if not wheel.name.endswith("-none-any.whl"):
        raise ReleaseError(f"{wheel.name} is for this machine alone; only pure Python can be sent to hosts")
    return wheel


def copy_sources(project: Path, copy: Path) -> None:
    """What the wheel is built from, with modes that do not depend on the checkout's umask: wheels carry them."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        built = ["build"] if Path(folder) == project else []
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in (*LEFT_OUT, *built))]

    shutil.copytree(project, copy, ignore=left_out)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _pip(command: str, *options: str) -> None:
    """Run pip, which knows its index from the machine's own configuration. Raises ReleaseError with its errors."""
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    ran = subprocess.run(
        [sys.executable, "-m", "pip", command, *quiet, *options],
        env=environment,
        umask=0o022,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if not line.startswith("WARNING")]
        raise ReleaseError(f"pip {command} failed:\n" + "\n".join(errors[-12:]))
