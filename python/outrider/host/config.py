"""The shim's configuration file, `outriderd.toml`, written by the role `outrider`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from outrider.errors import HostError
from outrider.registry.address import Address


class ConsulConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the Consul agent of this host. `token_file`: mode 0600; `servers`: their "host:port" for HTTP."""

    host: str = "127.0.0.1"
    port: int = 8500
    scheme: Literal["http", "https"] = "http"
    token_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    servers: tuple[str, ...] = ()

    def address(self, timeout_s: float = 2.0) -> Address:
        """As the client takes it, with the token read. Raises ConsulError for a token file that is not in order."""
        address = Address(
            host=self.host,
            port=self.port,
            scheme=self.scheme,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            timeout_s=timeout_s,
        )
        return address.with_token_file(self.token_file) if self.token_file else address


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host's shim.

    free_ports: an agent's taken port is replaced by a free one (embedded mode) instead of refused
    starts: instances that may be starting at one time, so that a whole host does not compete for the cores at once
    needs_wait_s: seconds that an instance waits for its needs before it starts without them
    """

    fleet: str
    host: str
    runtime_dir: Path
    state_dir: Path
    log_dir: Path
    address: str = "127.0.0.1"
    supervisor: Literal["process", "systemd"] = "process"
    releases_dir: Path | None = None
    free_ports: bool = False
    http_host: str = "127.0.0.1"
    http_port: int = 9321
    starts: int = 8
    needs_wait_s: float = 15.0
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    consul: ConsulConfig = msgspec.field(default_factory=ConsulConfig)

    @property
    def releases(self) -> Path:
        """Folder of the content-addressed releases."""
        return self.releases_dir or self.state_dir / "releases"

    @property
    def socket(self) -> Path:
        """The Unix socket that the shim answers on."""
        return self.runtime_dir / "outriderd.sock"


def load_config(path: Path) -> Config:
    """Read `outriderd.toml`. Raises HostError naming the file and what is wrong in it."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Config, dec_hook=_convert)
    except OSError as error:
        raise HostError(
            f"{path}: {error.strerror}", hint="the role `outrider` writes this file: run site.yml"
        ) from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise HostError(f"{path}: {error}") from error


def _convert(kind: type, value: object) -> object:
    """What TOML has as a string and Config as a path."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    # A ValueError becomes a ValidationError that names the key.
    raise ValueError(f"Expected a path as `str`, got `{type(value).__name__}`")
