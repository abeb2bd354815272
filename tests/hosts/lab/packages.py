"""Debian packages for lab hosts, which have no route out: fetched once with what the image lacks, and pushed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hosts.lab.image import cache_folder, image
from hosts.lab.machine import Machine


def fetched(*names: str) -> list[Path]:
    """The packages' files. Raises CalledProcessError if apt refuses."""
    folder = cache_folder() / "debs" / "+".join(names)
    if not (folder / ".complete").exists():
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        options = [
            "-oAPT::Sandbox::User=root",
            f"-oDir::State::status={image()}/var/lib/dpkg/status",
            f"-oDir::Cache::archives={folder}",
        ]
        words = ["install", "--yes", "--no-install-recommends", "--download-only", *names]
        subprocess.run(["apt-get", "-qq", *options, *words], check=True, stdin=subprocess.DEVNULL)
        (folder / ".complete").touch()
    return sorted(folder.glob("*.deb"))


def push(machine: Machine, *names: str) -> None:
    """Install them there, if they are not yet. Raises CalledProcessError."""
    if machine.run("sh", "-c", f"dpkg --status {' '.join(names)} >/dev/null 2>&1 && echo there", check=False):
        return
    target = Path(f"/proc/{machine.leader()}/root/root")
    files = fetched(*names)
    for file in files:
        (target / file.name).write_bytes(file.read_bytes())
    machine.run("dpkg", "--install", *(f"/root/{file.name}" for file in files))
