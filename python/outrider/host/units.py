"""What differs in the systemd unit of one instance: its user, its share of the host, its state folder. Pure.

Memory is a limit: an instance that outgrows `memory_mib` is ended whole and at once (no MemoryHigh=, which would slow
it down until it looks hung, and no swap). CPU is a share, not a limit: the instances of a host compete in proportion
to `cpu`, so each gets what placement promised it whenever it needs it, and may use what the others leave. A quota
would only make it slower while cores are idle, in steps of 100 ms that callers see.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from outrider.errors import FleetError
from outrider.fleet.effective import may_run_on
from outrider.fleet.spec import Agent, Host

HEADER = "# Written by Outrider for one instance; the next run of site.yml replaces it. Put your own into another file."
STATE = "outrider-agents"
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
# Whoever may write to the fleet's documents decides what runs as an agent's user.
REFUSED = {
    "root": "whoever may publish agents could then do everything on the host",
    "outrider": "the agent could then read the shim's token for Consul",
    "consul": "the agent could then read the keys of Consul",
}
STOP_SLACK_S = 5
TEMPLATE_STOP_S = 10
HOMES = ("/home/", "/root/", "/run/user/")


def drop_ins(agents: Mapping[str, Agent], host: Host) -> dict[str, str]:
    """The drop-in of each instance that may run on `host`, by instance; none for one that is as the template says.

    Raises FleetError naming every agent whose user cannot be.
    """
    problems = list(_problems(agents, host))
    if problems:
        raise FleetError(problems, hint="give each agent a system user of its own, or none")
    found = {}
    for name, agent in sorted(agents.items()):
        if not may_run_on(agent, host):
            continue
        # One more: a migration starts the new instance beside the old ones.
        for number in range(1, agent.instance_count() + 2):
            instance = f"{name}-{number}"
            if lines := list(_settings(agent, instance)):
                found[instance] = "\n".join((HEADER, "[Service]", *lines, ""))
    return found


def _problems(agents: Mapping[str, Agent], host: Host) -> Iterator[str]:
    for name, agent in sorted(agents.items()):
        if agent.user and may_run_on(agent, host):
            if agent.user in REFUSED:
                yield f"agent {name}: user {agent.user}: {REFUSED[agent.user]}"
            elif not USER.fullmatch(agent.user):
                yield f"agent {name}: user {agent.user!r}: found a name that no system user has"


def _settings(agent: Agent, instance: str) -> Iterator[str]:
    if agent.user:
        yield f"User={agent.user}"
    if agent.resources.memory_mib:
        yield f"MemoryMax={agent.resources.memory_mib}M"
        yield "MemorySwapMax=0"
    if agent.resources.cpu:
        yield f"CPUWeight={cpu_weight(agent.resources.cpu)}"
    if agent.state:
        yield f"StateDirectory={STATE}/{instance}"
        yield "StateDirectoryMode=0700"
    if (stop_s := math.ceil(agent.stop_timeout_s) + STOP_SLACK_S) != TEMPLATE_STOP_S:
        yield f"TimeoutStopSec={stop_s}"
    if any(word.startswith(HOMES) for word in _words(agent)):
        yield "ProtectHome=read-only"


def cpu_weight(cpu: float) -> int:
    """The weight of so many cores; one core is what an agent weighs that declares none."""
    return min(10000, max(1, round(100 * cpu)))


def _words(agent: Agent) -> Iterator[str]:
    """Everything in which an agent may name a file of its own."""
    yield from agent.command or ()
    yield from agent.args
    yield from (agent.python or "", *agent.secrets.values(), *agent.environment.values())
