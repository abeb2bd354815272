"""The shim's configuration file, `outriderd.toml`, written by the role `outrider`."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from outrider.errors import HostError
from outrider.registry.address import Address

AGENT_STATE = Path("/var/lib/outrider-agents")
BACKUPS = Path("/var/lib/outrider-backups")


class ConsulConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the Consul agent of this host, and its servers.

    token_file: mode 0600
    servers: each as "https://host:port"
    ca_file, cert_file, key_file: for https
    """

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

    def server_addresses(self) -> tuple[Address, ...]:
        """The servers themselves, for when the Consul agent of this host does not answer."""
        asked = (_server(url) for url in self.servers)
        return tuple(replace(self.address(), scheme=scheme, host=host, port=port) for scheme, host, port in asked)


class HttpTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TCP listener's certificate, and the CA of its clients' certificates. Read again when they change."""

    ca_file: Path
    cert_file: Path
    key_file: Path


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host's shim.

    free_ports: an agent's taken port is replaced by a free one (embedded mode) instead of refused
    starts: instances that may be starting at one time, so that a whole host does not compete for the cores at once
    needs_wait_s: seconds that an instance waits for its needs before it starts without them
    calls_tls: folder with ca.pem, cert.pem and key.pem for calls between hosts; without it they go in the clear
    local_ports: socket of the HAProxy that serves the host's local ports, if there is one
    placer: whether this shim may be elected to place instances of lost hosts; its token must allow it
    http_tls: without it, http_host must be a loopback address
    peers_key_file: the fleet's key for datagrams between shims, mode 0600; without it there are none
    peers_port: UDP port of them, on `address`, the same on all hosts
    backups_dir: folder of this host's backups, of whoever makes them
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
    placer: bool = True
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    consul: ConsulConfig = msgspec.field(default_factory=ConsulConfig)
    http_tls: HttpTls | None = None
    calls_tls: Path | None = None
    local_ports: Path | None = None
    peers_key_file: Path | None = None
    peers_port: int = 9322
    backups_dir: Path | None = None

    @property
    def releases(self) -> Path:
        """Folder of the content-addressed releases."""
        return self.releases_dir or self.state_dir / "releases"

    @property
    def agent_state(self) -> Path:
        """Folder of the instances' state folders. Those that systemd makes lie beside ours: root must not follow us."""
        return AGENT_STATE if self.supervisor == "systemd" else self.state_dir / "agents"

    @property
    def backups(self) -> Path:
        """Folder of the backups. On systemd hosts root makes them, who must not follow the shim's user: beside ours."""
        return self.backups_dir or (BACKUPS if self.supervisor == "systemd" else self.state_dir / "backups")

    @property
    def socket(self) -> Path:
        """The Unix socket that the shim answers on."""
        return self.runtime_dir / "outriderd.sock"


def load_config(path: Path) -> Config:
    """Read `outriderd.toml`. Raises HostError naming the file and what is wrong in it."""
    try:
        config = msgspec.toml.decode(path.read_bytes(), type=Config, dec_hook=_convert)
    except OSError as error:
        raise HostError(
            f"{path}: {error.strerror}", hint="the role `outrider` writes this file: run site.yml"
        ) from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise HostError(f"{path}: {error}") from error
    for url in config.consul.servers:
        try:
            _server(url)
        except ValueError:
            raise HostError(f"{path}: consul.servers has {url!r}, which is not like https://10.0.0.1:8501") from None
    if config.http_tls is None and not is_loopback(config.http_host):
        raise HostError(
            f"{path}: http_host {config.http_host} would be served in the clear, to everybody who reaches it",
            hint="add the table [http_tls] with ca_file, cert_file and key_file, or listen on 127.0.0.1",
        )
    return config


def _server(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a Consul server. Raises ValueError."""
    parts = urlsplit(url)
    whole = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.port or parts.username or url != whole:
        raise ValueError(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("the token would go in the clear")
    return parts.scheme, parts.hostname, parts.port


def is_loopback(host: str) -> bool:
    """Whether only this host can connect to it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _convert(kind: type, value: object) -> object:
    """What TOML has as a string and Config as a path."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    # A ValueError becomes a ValidationError that names the key.
    raise ValueError(f"Expected a path as `str`, got `{type(value).__name__}`")
