"""Services and checks: registering with the Consul agent, reading the catalog, and the way past a stuck agent."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from outrider.errors import ConsulError
from outrider.registry.client import Consul, Reply, decode
from outrider.registry.transport import Params

# The shim sets the status; the TTL is only there because Consul wants every check to have a kind.
CHECK_TTL = "24h"
# An election takes three seconds, and a frozen leader up to five.
ESCALATE_S = 6.0


class NotRegistered(ConsulError):
    """The Consul agent does not know this service or check: it must be registered again."""


class Service(Struct, frozen=True):
    """One instance as a Consul service, with its one check. Read from the catalog, the check's fields are empty."""

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    check_id: str = ""
    status: str = ""
    output: str = ""


class CheckState(Struct, frozen=True, order=True):
    """A check as the catalog knows it; `service_id` is empty for a check of the whole node."""

    node: str
    check_id: str
    service_id: str
    service_name: str
    status: str
    output: str


class _Check(Struct):
    CheckID: str
    ServiceID: str = ""
    ServiceName: str = ""
    Node: str = ""
    Status: str = "critical"
    Output: str = ""


class _Service(Struct):
    ID: str
    Service: str
    Address: str = ""
    Port: int = 0
    Tags: list[str] | None = None
    Meta: dict[str, str] | None = None


def register(consul: Consul, service: Service, timeout_s: float = 2.0) -> None:
    """Register or replace a service and its check. Each call is a raft write, also an identical one."""
    definition: dict[str, Any] = {
        "ID": service.id,
        "Name": service.name,
        "Address": service.address,
        "Port": service.port,
        "Tags": list(service.tags),
        "Meta": service.meta,
        "Check": {
            "CheckID": service.check_id,
            "Name": "Outrider",
            "TTL": CHECK_TTL,
            "Status": service.status or "critical",
        },
    }
    consul.put("/v1/agent/service/register", msgspec.json.encode(definition), timeout_s=timeout_s)


def deregister(consul: Consul, service_id: str, timeout_s: float = 2.0) -> None:
    """Remove a service and its check; one that is not there is no error."""
    try:
        consul.put(f"/v1/agent/service/deregister/{service_id}", timeout_s=timeout_s)
    except ConsulError as error:
        if not _unknown(error):
            raise


def set_check(consul: Consul, check_id: str, status: str, output: str, timeout_s: float = 2.0) -> None:
    """Set a check's status. A 200 means that the Consul agent heard it, not that the catalog has it."""
    body = msgspec.json.encode({"Status": status, "Output": output})
    try:
        consul.put(f"/v1/agent/check/update/{check_id}", body, timeout_s=timeout_s)
    except ConsulError as error:
        if _unknown(error):
            raise NotRegistered(f"check {check_id} is not registered", status=error.status) from error
        raise


def register_node_check(consul: Consul, check_id: str, name: str, ttl_s: float, timeout_s: float = 2.0) -> None:
    """A check of the whole host: when its time to live runs out, every service of the host is critical."""
    body = {"ID": check_id, "Name": name, "TTL": f"{ttl_s:g}s", "Status": "passing"}
    consul.put("/v1/agent/check/register", msgspec.json.encode(body), timeout_s=timeout_s)


def pass_check(consul: Consul, check_id: str, timeout_s: float = 2.0) -> None:
    """Renew a check's time to live. Costs no raft write while its status is the same."""
    set_check(consul, check_id, "passing", "", timeout_s)


def maintenance(consul: Consul, on: bool, reason: str) -> None:
    """Take this host out, or back: one raft write however many services it has."""
    consul.put("/v1/agent/maintenance", params={"enable": "true" if on else "false", "reason": reason})


def local_services(consul: Consul) -> dict[str, Service]:
    """Every service that this Consul agent holds, with its check."""
    held = decode(consul.get("/v1/agent/services").body, dict[str, _Service])
    checks = decode(consul.get("/v1/agent/checks").body, dict[str, _Check])
    by_service = {check.ServiceID: check for check in checks.values() if check.ServiceID}
    return {name: _service(item, by_service.get(item.ID)) for name, item in held.items()}


def node_services(consul: Consul, node: str) -> list[Service]:
    """Every service of a node as the catalog has it, by ID; none if the node is not known."""
    items = _node(consul, node).Services or {}
    return sorted((_service(item, None) for item in items.values()), key=lambda service: service.id)


def nodes(consul: Consul) -> frozenset[str]:
    """The names of all nodes of the catalog, whether they are well or not."""
    return frozenset(item.Node for item in decode(consul.get("/v1/catalog/nodes").body, list[_Named]))


def escalate(consul: Consul, node: str, check_id: str, service_id: str, status: str, output: str) -> None:
    """Write a check's status straight into the catalog, past the local agent's check API.

    That API hangs for half a minute behind a frozen leader; this call returns after the election. The owning Consul
    agent overwrites it at its next full sync, with the same status once it has heard it. Raises NotRegistered if the
    catalog does not have that node or service.
    """
    if not service_id:
        # With a service named, Consul refuses an unknown node; for a check of the node it would make one up.
        _require_node(consul, node)
    check = {"Node": node, "CheckID": check_id, "ServiceID": service_id, "Status": status, "Output": output}
    check["Name"] = "Outrider"
    body = {"Node": node, "SkipNodeUpdate": True, "Check": check}
    try:
        consul.put("/v1/catalog/register", msgspec.json.encode(body), timeout_s=ESCALATE_S)
    except ConsulError as error:
        if error.status == 500 and "missing service registration" in error.message.lower():
            raise NotRegistered(f"service {service_id} of node {node} is not in the catalog", status=500) from error
        raise


def critical(reply: Reply) -> list[CheckState]:
    """The checks in an answer of /v1/health/state/..., in a steady order."""
    checks = decode(reply.body, list[_Check]) if reply.body else []
    states = (CheckState(c.Node, c.CheckID, c.ServiceID, c.ServiceName, c.Status, c.Output) for c in checks)
    return sorted(states)


class _Named(Struct):
    Node: str


class _Node(Struct):
    Node: dict[str, Any] | None = None
    Services: dict[str, _Service] | None = None


def _node(consul: Consul, node: str, params: Params = None) -> _Node:
    body = consul.get(f"/v1/catalog/node/{node}", params=params).body
    return _Node() if body in (b"", b"null") else decode(body, _Node)


def _require_node(consul: Consul, node: str) -> None:
    if _node(consul, node, {"stale": ""}).Node is None:
        raise NotRegistered(f"node {node} is not in the catalog")


def _service(item: _Service, check: _Check | None) -> Service:
    return Service(
        id=item.ID,
        name=item.Service,
        address=item.Address,
        port=item.Port,
        tags=tuple(item.Tags or ()),
        meta=item.Meta or {},
        check_id=check.CheckID if check else "",
        status=check.Status if check else "",
        output=check.Output if check else "",
    )


def _unknown(error: ConsulError) -> bool:
    """Consul 1.8 says it with a 500 and a sentence, newer ones with a 404."""
    says = error.message.lower()
    sentences = ("unknown check", "unknown service", "does not have associated ttl")
    return error.status == 404 or (error.status == 500 and any(sentence in says for sentence in sentences))
