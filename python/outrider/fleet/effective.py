"""An agent as it runs in one place: what differs there merged in, what is left open decided. Pure."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec.structs import replace

from outrider.fleet.ports import CALL
from outrider.fleet.spec import Agent, Host, Probe

# What changes how people and Consul see an agent, but not its process.
_SEEN = ("tags", "tier", "description")
_PLACED = ("hosts", "labels", "count", "standbys", "mode", "restart", "failback_s", "failback_window", "needs")
_NOT_RUNNING = _SEEN + _PLACED


def agent_on(agent: Agent, entry: str) -> Agent:
    """The agent for the instance that fills `entry` of its hosts."""
    there = agent.on_host().get(entry)
    if there is None:
        return agent
    return replace(
        agent,
        ports={**agent.ports, **there.ports},
        environment={**agent.environment, **there.environment},
        config={**agent.config, **there.config},
        needs=agent.needs if there.needs is None else there.needs,
    )


def may_run_on(agent: Agent, host: Host) -> bool:
    """Whether the host, or a group of it, is among the agent's, and has its labels."""
    named = agent.on_host()
    return (not named or any(name in named for name in (host.name, *host.groups))) and all(
        host.labels.get(label) == value for label, value in agent.labels.items()
    )


def is_fenced(agent: Agent) -> bool:
    """Whether an instance of it that loses its lease stops in time: by the library, or by its dead-man."""
    return CALL in agent.ports or agent.fence is not None


def probe_port(agent: Agent, probe: Probe) -> str:
    """Name of the port that `probe` asks."""
    if probe.type == "call" and not probe.port:
        return CALL
    return probe.port or ("health" if "health" in agent.ports else "main")


def default_probes(agent: Agent) -> tuple[Probe, ...]:
    """What an agent without probes gets: http if it has a port for it, else its health method, else tcp."""
    if "health" in agent.ports:
        return (Probe(type="http"),)
    if CALL in agent.ports:
        return (Probe(type="call", port=CALL),)
    return (Probe(type="tcp"),) if agent.ports else ()


def version_of(agent: Agent, release: str) -> str:
    """Twelve hex digits that change exactly when an instance must be restarted: its code or its configuration."""
    running = msgspec.to_builtins(replace(agent, code=None))
    running["on"] = {
        name: msgspec.to_builtins(there) for name, there in agent.on_host().items() if there != type(there)()
    }
    for key in _NOT_RUNNING:
        running.pop(key, None)
    canonical = msgspec.json.encode([running, list(agent.need_list()), release], order="deterministic")
    return hashlib.sha256(canonical).hexdigest()[:12]
