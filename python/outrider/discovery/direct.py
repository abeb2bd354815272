"""Asking Consul itself, for hosts that no shim runs on."""

from __future__ import annotations

import difflib
import os
from functools import cache
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from outrider.discovery.records import Answer, Instance, Role
from outrider.discovery.routing import Evidence, Observed, routing_set
from outrider.errors import ConsulError, UnknownAgent
from outrider.registry.address import Address
from outrider.registry.client import Consul, connect, decode
from outrider.registry.layout import TAG, service_name

MAINTENANCE = "_node_maintenance"
# A check's output tells how certain a failure is: only a process that may still answer is worth a try in need.
SUSPICION = "probe:"
ROLES: dict[str, Role] = {"holder": "holder", "standby": "standby"}


class _Service(Struct):
    ID: str
    Address: str
    Port: int
    Tags: list[str] | None = None
    Meta: dict[str, str] | None = None


class _Node(Struct):
    Node: str
    Address: str


class _Check(Struct):
    CheckID: str
    Status: str
    Output: str = ""
    ServiceID: str = ""


class _Health(Struct):
    Node: _Node
    Service: _Service
    Checks: list[_Check]


def consul_of_environment(timeout_s: float = 2.0) -> Consul:
    """Consul where its own tools look for it: CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN_FILE. Nothing is sent yet."""
    where, token_file = os.environ.get("CONSUL_HTTP_ADDR"), os.environ.get("CONSUL_HTTP_TOKEN_FILE")
    return _consul_at(where or "127.0.0.1:8500", token_file or "", timeout_s)


@cache
def _consul_at(where: str, token_file: str, timeout_s: float) -> Consul:
    """One for all lookups of a process, so that its connection stays open."""
    address = replace(address_of(where), timeout_s=timeout_s)
    return connect(address.with_token_file(token_file) if token_file else address)


def address_of(text: str) -> Address:
    """What CONSUL_HTTP_ADDR says. Raises ConsulError if that is no host and port, or a scheme we do not speak."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or 8500
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ConsulError(f"CONSUL_HTTP_ADDR is {text!r}", hint="write it as host:port, http://... or https://...")
    where = Address(host=parts.hostname, port=port)
    return replace(where, scheme="https") if parts.scheme == "https" else where


def lookup_directly(name: str) -> Answer:
    """One HTTP request to the Consul agent's cache: about a thousand times slower than the catalogue.

    Routes as the shim does, by what Consul's checks say. Raises UnknownAgent and ConsulError.
    """
    service = service_name(name)
    if not service or "/" in service:
        raise _unknown(name)
    reply = consul_of_environment().get(f"/v1/health/service/{service}", params={"cached": ""})
    found = [item for item in decode(reply.body or b"[]", list[_Health]) if TAG in (item.Service.Tags or ())]
    if not found:
        raise _unknown(name)
    observed = [Observed(_instance(name, item), evidence_of(item.Checks)) for item in found]
    called = [seen for seen in observed if seen.instance.role != "standby"]
    return Answer(name, routing_set(called), reply.age_s, "consul")


def _unknown(name: str) -> UnknownAgent:
    services = decode(
        consul_of_environment().get("/v1/catalog/services", params={"cached": ""}).body or b"{}", dict[str, list[str]]
    )
    ours = [service for service, tags in services.items() if TAG in tags]
    near = difflib.get_close_matches(name, ours, 3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"Consul at {consul_of_environment().address} knows {len(ours)} agents"
    )
    return UnknownAgent(f"Consul knows no agent {name}, and no catalogue of this host does", hint=hint)


def evidence_of(checks: list[_Check]) -> Evidence:
    """What routing may conclude from an instance's checks and those of its node."""
    critical = [check for check in checks if check.Status == "critical"]
    certain = (not c.Output.startswith(SUSPICION) if c.ServiceID else c.CheckID == MAINTENANCE for c in critical)
    if any(certain):
        return "gone"
    if critical:
        return "suspected"
    return "passing" if all(check.Status == "passing" for check in checks) else "warning"


def _instance(name: str, item: _Health) -> Instance:
    meta = item.Service.Meta or {}
    return Instance(
        agent=meta.get("agent", name),
        instance=item.Service.ID,
        host=meta.get("host", item.Node.Node),
        address=item.Service.Address or item.Node.Address,
        port=item.Service.Port,
        ports=_ports(meta.get("ports", "")),
        role=ROLES.get(meta.get("role", ""), "replica"),
        epoch=int(meta["epoch"]) if meta.get("epoch", "").isdecimal() else 0,
        version=meta.get("version", ""),
    )


def _ports(text: str) -> dict[str, int]:
    """Ports by name; one registration that somebody else garbled must not cost the others."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, int])
    except msgspec.MsgspecError:
        return {}
