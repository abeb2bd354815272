"""What an agent may depend on without saying so: kernel, Python, GPU and driver of this host."""

from __future__ import annotations

import platform
import re
from pathlib import Path

NVIDIA = Path("/proc/driver/nvidia")
NONE = "none"
_VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)")
_MODEL = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)


def environment(nvidia: Path = NVIDIA) -> dict[str, str]:
    """By name, as each shim tells it in Consul. What the host does not have is `none`, what it does not say is absent.

    Read where the driver itself tells it, so that no library need be there, and none waits for a GPU that hangs.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    return {"kernel": platform.release(), "python": python, **_gpus(nvidia)}


def _gpus(nvidia: Path) -> dict[str, str]:
    if not nvidia.is_dir():
        return {"gpu": NONE, "driver": NONE}
    found = {}
    try:
        if version := _VERSION.search((nvidia / "version").read_text()):
            found["driver"] = version[1]
        told = [_MODEL.search(file.read_text()) for file in sorted(nvidia.glob("gpus/*/information"))]
    except (OSError, UnicodeDecodeError):
        return found
    models = sorted(model[1] for model in told if model)
    return {**found, "gpu": ", ".join(models)} if models else found
