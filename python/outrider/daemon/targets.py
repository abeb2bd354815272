"""Where Prometheus and the other shims find each host's shim: Consul's service `outrider-shim`, followed by a watch."""

from __future__ import annotations

import asyncio
import ipaddress
import logging

from msgspec import Struct, field

from outrider.errors import ConsulError
from outrider.host.config import Config
from outrider.host.environment import environment
from outrider.registry.client import Consul, Reply, decode
from outrider.registry.layout import SHIM
from outrider.registry.services import Service
from outrider.registry.watch import Watch

log = logging.getLogger("outrider.shim")

# Without the tag that marks instances: nobody calls a shim as an agent.
SERVICE = SHIM
TAG = "metrics"


class TargetGroup(Struct, frozen=True):
    """One group of Prometheus' HTTP service discovery."""

    targets: tuple[str, ...]
    labels: dict[str, str]


class _Registered(Struct):
    ServiceAddress: str = ""
    Address: str = ""
    ServicePort: int = 0
    ServiceMeta: dict[str, str] = field(default_factory=dict)


def shim_service(config: Config) -> Service:
    """This shim as a Consul service: where it serves /metrics and /sd, and what its host is like.

    That it lives is told by the host's check.
    """
    meta = {"fleet": config.fleet, "host": config.host, "scheme": "https" if config.http_tls else "http"}
    meta |= environment()
    if config.peers_key_file:
        meta |= {"peers_address": config.address, "peers_port": str(config.peers_port)}
    return Service(
        id=SERVICE,
        name=SERVICE,
        address=_reachable(config),
        port=config.http_port,
        tags=(TAG,),
        meta=meta,
        check_id=f"outrider:{SERVICE}",
        status="passing",
        output="ok",
    )


def group_of(address: str, port: int, meta: dict[str, str]) -> TargetGroup:
    """A registered shim as Prometheus takes it; the scheme overrides that of its configuration."""
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    labels = {"fleet": meta.get("fleet", ""), "host": meta.get("host", ""), "__scheme__": meta.get("scheme", "http")}
    return TargetGroup((where,), labels)


def groups_of(reply: Reply, fleet: str) -> list[TargetGroup]:
    """The fleet's shims in an answer of /v1/catalog/service/..., in a steady order. Raises ConsulError."""
    found = decode(reply.body or b"[]", list[_Registered])
    groups = [
        group_of(each.ServiceAddress or each.Address, each.ServicePort, each.ServiceMeta)
        for each in found
        if each.ServiceMeta.get("fleet") == fleet
    ]
    return sorted(groups, key=lambda group: (group.labels["host"], group.targets))


def peers_of(reply: Reply, fleet: str) -> dict[str, str]:
    """The fleet's hosts whose shims take datagrams, to their addresses. Raises ConsulError."""
    metas = (each.ServiceMeta for each in decode(reply.body or b"[]", list[_Registered]))
    return {
        meta["host"]: meta["peers_address"] for meta in metas if meta.get("fleet") == fleet and "peers_port" in meta
    }


class Targets:
    """The shims of all hosts as last read. Methods run on the event loop. `peers`: hosts to the addresses they tell."""

    def __init__(self, consul: Consul, config: Config) -> None:
        self._fleet = config.fleet
        own = shim_service(config)
        self._own = group_of(own.address, own.port, own.meta)
        self._known: list[TargetGroup] = []
        self.peers: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(consul, f"/v1/catalog/service/{SERVICE}", on_change=self._in_thread, name=SERVICE)

    def groups(self) -> list[TargetGroup]:
        """Every host's shim; this one also while Consul does not know it yet."""
        others = [group for group in self._known if group.labels["host"] != self._own.labels["host"]]
        return sorted([*others, self._own], key=lambda group: group.labels["host"])

    def start(self) -> None:
        """Follow Consul from here on."""
        self._watch.start()

    def ask_again(self) -> None:
        """A host was lost, maybe the one that was to answer."""
        self._watch.ask_again()

    async def stop(self) -> None:
        """Stop the watch and wait for its thread."""
        await asyncio.to_thread(self._watch.stop)

    def _in_thread(self, reply: Reply) -> None:
        self._loop.call_soon_threadsafe(self._changed, reply)

    def _changed(self, reply: Reply) -> None:
        try:
            self._known = groups_of(reply, self._fleet)
            self.peers = peers_of(reply, self._fleet)
        except ConsulError as error:
            log.warning("the list of shims is not readable and stays as it was: %s", error.message)


def _reachable(config: Config) -> str:
    """What others connect to: every address that is listened on counts as the host's."""
    try:
        every = ipaddress.ip_address(config.http_host).is_unspecified
    except ValueError:
        every = False
    return config.address if every else config.http_host
