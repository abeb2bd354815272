"""Where things are on this machine: the shim's runtime folder, its configuration, and the Consul agent it uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outrider.host.config import Config
    from outrider.registry.client import Consul

EMBEDDED = Path(".outrider/run")
INSTALLED = Path("/run/outrider")
CONFIG = Path("/etc/outrider/outriderd.toml")


def default_runtime() -> Path:
    """$OUTRIDER_RUNTIME, else the demo of the current folder or of the checkout around it, else the installed shim's.

    An installed command is in no checkout; the one of a checkout finds its own demo from anywhere.
    """
    if named := os.environ.get("OUTRIDER_RUNTIME"):
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents[3:4]):
        if (folder / EMBEDDED).is_dir():
            return folder / EMBEDDED
    return INSTALLED


def config_file(runtime: Path) -> Path | None:
    """The configuration file of the shim that serves `runtime`, if it can be told."""
    beside = runtime.absolute().parent / "etc" / "outriderd.toml"
    if os.access(beside, os.R_OK):
        return beside
    return CONFIG if runtime == INSTALLED and os.access(CONFIG, os.R_OK) else None


def config_of(runtime: Path) -> Config | None:
    """That file's content. Raises HostError if it cannot be read."""
    from outrider.host.config import load_config

    file = config_file(runtime)
    return load_config(file) if file else None


def consul_of(runtime: Path, timeout_s: float = 2.0) -> Consul:
    """The Consul agent that the shim of `runtime` uses, else where Consul's own tools look. Nothing is sent yet."""
    from outrider.discovery.direct import consul_of_environment
    from outrider.registry.client import connect

    if config := config_of(runtime):
        return connect(config.consul.address(timeout_s))
    return consul_of_environment(timeout_s)
