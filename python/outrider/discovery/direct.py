"""Asking Consul itself, for hosts that no shim runs on."""

from __future__ import annotations

import json
import os
from functools import cache
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from outrider.discovery.records import Answer, Instance
from outrider.errors import UnknownAgent
from outrider.registry.address import Address
from outrider.registry.client import Consul, connect
from outrider.registry.layout import service_name


class _Service(Struct):
    ID: str
    Address: str
    Port: int
    Meta: dict[str, str] | None = None


class _Node(Struct):
    Node: str
    Address: str


class _Check(Struct):
    Status: str


class _Health(Struct):
    Node: _Node
    Service: _Service
    Checks: list[_Check]


@cache
def _consul() -> Consul:
    """Consul where its own tools look for it: CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN_FILE."""
    text = os.environ.get("CONSUL_HTTP_ADDR", "127.0.0.1:8500")
    parts = urlsplit(text if "://" in text else f"http://{text}")
    where = Address(host=parts.hostname or "127.0.0.1", port=parts.port or 8500)
    address = replace(where, scheme="https") if parts.scheme == "https" else where
    token_file = os.environ.get("CONSUL_HTTP_TOKEN_FILE")
    return connect(address.with_token_file(token_file) if token_file else address)


def lookup_directly(name: str) -> Answer:
    """One HTTP request to the Consul agent's cache: about a thousand times slower than the catalogue."""
    reply = _consul().get(f"/v1/health/service/{service_name(name)}", params={"cached": ""})
    found = msgspec.json.decode(reply.body, type=list[_Health])
    if not found:
        raise UnknownAgent(f"Consul knows no agent {name}, and there is no catalogue on this host")
    well = [item for item in found if all(check.Status != "critical" for check in item.Checks)]
    instances = tuple(sorted((_instance(name, item) for item in well), key=lambda instance: instance.instance))
    return Answer(name, instances, reply.age_s, "consul")


def _instance(name: str, item: _Health) -> Instance:
    meta = item.Service.Meta or {}
    return Instance(
        agent=name,
        instance=item.Service.ID,
        host=meta.get("host", item.Node.Node),
        address=item.Service.Address or item.Node.Address,
        port=item.Service.Port,
        ports=json.loads(meta.get("ports") or "{}"),
        status="passing" if all(check.Status == "passing" for check in item.Checks) else "warning",
        version=meta.get("version", ""),
    )
