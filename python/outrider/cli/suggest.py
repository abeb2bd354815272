"""The error for a name that nothing has, with the nearest one that something has."""

from __future__ import annotations

from outrider.errors import UnknownAgent
from outrider.host.reports import StatusReport


def unknown(name: str, report: StatusReport) -> UnknownAgent:
    """No agent and no instance of the fleet is called `name`."""
    import difflib

    agents = {item.agent: item.agent.lower() for item in report.instances}
    lower = difflib.get_close_matches(name.lower(), agents.values(), 2, 0.6)
    near = [agent for agent, low in agents.items() if low in lower]
    hint = f"did you mean {' or '.join(near)}?" if near else "`outrider agents` lists them all"
    return UnknownAgent(f"no agent or instance {name} in fleet {report.fleet}", hint=hint)
