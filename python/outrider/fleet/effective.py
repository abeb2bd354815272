"""An agent as it runs in one place: what differs there merged in, what is left open decided. Pure."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec.structs import replace

from outrider.fleet.spec import Agent, Probe

# What changes how people and Consul see an agent, but not its process.
_NOT_RUNNING = ("tags", "tier", "description", "hosts", "labels", "count", "standbys", "mode", "restart", "needs")


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


def probe_port(agent: Agent, probe: Probe) -> str:
    """Name of the port that `probe` asks."""
    return probe.port or ("health" if "health" in agent.ports else "main")


def default_probes(agent: Agent) -> tuple[Probe, ...]:
    """What an agent without probes gets: http where it has a port for it, else whether its port accepts."""
    if "health" in agent.ports:
        return (Probe(type="http"),)
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
