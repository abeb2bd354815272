"""What doctor asks Consul: does it answer, with a leader, and who has the ports that the agents want."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from outrider.cli.host_checks import token_file
from outrider.cli.where import consul_of
from outrider.errors import ConsulDenied, ConsulError, ConsulUnreachable, OutriderError
from outrider.fleet.effective import agent_on
from outrider.host.config import Config
from outrider.host.placeholders import main_port
from outrider.host.ports import owner_of
from outrider.host.reports import Finding, InstanceReport
from outrider.registry.client import Consul
from outrider.registry.kv import list_docs
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, PlacementDoc


def consul_findings(runtime: Path, config: Config | None) -> Iterator[Finding]:
    """The token, the Consul agent and its leader."""
    if config and config.consul.token_file:
        yield token_file(config.consul.token_file)
    mend = "`make demo` starts it again" if config and config.supervisor == "process" else "systemctl start consul"
    try:
        consul = consul_of(runtime)
    except OutriderError as error:
        yield Finding("consul", False, error.message, error.hint)
        return
    if config and config.supervisor == "process":
        mend += f"; it writes to {config.log_dir / 'consul.log'}"
    yield _leader(consul, mend)


def _leader(consul: Consul, mend: str) -> Finding:
    at = consul.address
    try:
        leader = msgspec.json.decode(consul.get("/v1/status/leader").body, type=str)
    except ConsulUnreachable as error:
        owner = owner_of(at.port) if at.host in ("127.0.0.1", "::1", "localhost") else ""
        held = "" if owner in ("", "unknown process") else f"; {owner} has its port"
        return Finding("consul", False, error.message + held, mend)
    except (ConsulError, msgspec.MsgspecError) as error:
        return Finding(
            "consul", False, f"{at} does not answer as Consul does: {error}", f"see what listens there; {mend}"
        )
    if not leader:
        hint = "more than half of the Consul servers must run and reach one another: `consul operator raft list-peers`"
        return Finding("consul", False, f"{at} answers, but has no leader: nothing can be changed", hint)
    try:
        found = ".".join(map(str, consul.version))
    except ConsulDenied:
        found = "of a version that this token may not read"
    except ConsulError as error:
        return Finding("consul", False, f"{at}: {error.message}", mend)
    return Finding("consul", True, f"{at} answers: Consul {found}, leader {leader}")


def moved_ports(runtime: Path, host: str, instances: Mapping[str, InstanceReport]) -> Iterator[Finding]:
    """Agents of this host that listen elsewhere than the fleet file says, since somebody else has their port."""
    try:
        consul = consul_of(runtime)
        agents = list_docs(consul, FLEET, AgentDoc).docs
        placements = list_docs(consul, PLACEMENT, PlacementDoc).docs
    except OutriderError:
        return  # Consul has its own finding
    for name, (placement, _) in placements.items():
        for placed in placement.instances:
            seen = instances.get(placed.instance)
            if placed.host != host or name not in agents or seen is None or not seen.port:
                continue
            ports = agent_on(agents[name][0].agent, placed.entry).ports
            wanted = main_port({label: port for label, port in ports.items() if isinstance(port, int)})
            if wanted and wanted != seen.port and "auto" not in ports.values():
                found = f"{placed.instance} listens on {seen.port}: {wanted} is taken by {owner_of(wanted)}"
                yield Finding("port", True, found)
