"""Where things are on this machine: the shim's runtime folder, its configuration, and the Consul agent it uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outrider.host.config import Config
    from outrider.registry.address import Address
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
    from outrider.registry.address import Address
    from outrider.registry.client import connect

    if config := config_of(runtime):
        at = config.consul
        address = Address(
            host=at.host,
            port=at.port,
            scheme=at.scheme,
            ca_file=at.ca_file,
            cert_file=at.cert_file,
            key_file=at.key_file,
            timeout_s=timeout_s,
        )
        return connect(address.with_token_file(at.token_file) if at.token_file else address)
    address = _from_environment(timeout_s)
    token_file = os.environ.get("CONSUL_HTTP_TOKEN_FILE")
    return connect(address.with_token_file(token_file) if token_file else address)


def _from_environment(timeout_s: float) -> Address:
    from urllib.parse import urlsplit

    from outrider.errors import ConsulError
    from outrider.registry.address import Address

    text = os.environ.get("CONSUL_HTTP_ADDR", "127.0.0.1:8500")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "127.0.0.1", parts.port or 8500
    except ValueError as error:
        raise ConsulError(f"CONSUL_HTTP_ADDR {text!r}: {error}", hint="write it as host:port") from error
    return Address(host=host, port=port, scheme="https" if parts.scheme == "https" else "http", timeout_s=timeout_s)
