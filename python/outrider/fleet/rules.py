"""What types cannot say about a fleet: names, needs, ports, probes, code, hosts. Each rule yields its problems."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from outrider.fleet.effective import agent_on, default_probes, is_fenced, probe_port
from outrider.fleet.ports import CALL
from outrider.fleet.source import Place, Source
from outrider.fleet.spec import Agent, Fleet, Host

VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
RESERVED = "consul"  # the service under which Consul's own servers are registered


class Written(Struct, frozen=True):
    """A fleet and where each of its agents is written."""

    source: Source
    fleet: Fleet
    places: Mapping[str, Place]

    def at(self, agent: str, place: Place, text: str) -> str:
        """One line of the report about something of `agent`."""
        return self.source.at((*self.places[agent], *place), text)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Advice for a name that is not among `allowed`."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    if near:
        return f"did you mean `{near[0]}`?"
    return "allowed: " + (", ".join(names[:12]) or "none is declared") + (", ..." if len(names) > 12 else "")


def agent_problems(written: Written, name: str) -> Iterator[str]:
    """What is wrong with one agent by itself, and with whom it needs."""
    agent = written.fleet.agents[name]
    yield from _what_runs(written, name, agent)
    yield from _mode(written, name, agent)
    yield from _failback(written, name, agent)
    yield from _variables(written, name, agent)
    if agent.code is not None:
        yield from _code(written, name, agent)
    entries = tuple(agent.on_host()) or ("",)
    # One mistake shows in every place that inherits it; it is told once.
    found = [problem for entry in entries for problem in _there(written, name, agent, entry)]
    yield from dict.fromkeys(found)


def _what_runs(written: Written, name: str, agent: Agent) -> Iterator[str]:
    if (agent.command is None) == (agent.module is None):
        yield written.at(name, (), "needs exactly one of `command` and `module`")
    if agent.command is not None and not any(agent.command[:1]):
        yield written.at(name, ("command",), "found no program, allowed: a list of the program and its arguments")
    if agent.module is not None and not agent.module.strip():
        yield written.at(name, ("module",), "found no name, allowed: a Python module")
    if agent.command is not None and agent.args:
        yield written.at(name, ("args",), "are those of a module; a command has its own")


def _mode(written: Written, name: str, agent: Agent) -> Iterator[str]:
    if agent.mode == "singleton" and agent.count is not None:
        yield written.at(name, ("count",), "a singleton has no count; its warm copies are `standbys`")
    if agent.mode == "replicated" and agent.standbys:
        yield written.at(name, ("standbys",), "only a singleton has standbys; more replicas are `count`")
    if agent.mode == "replicated" and agent.fence:
        yield written.at(name, ("fence",), "only a singleton has a lease that ends: `mode: singleton`")
    if agent.fence and any(CALL in agent_on(agent, entry).ports for entry in ("", *agent.on_host())):
        # Its standbys would be cold for nothing.
        yield written.at(name, ("fence",), f"an agent that serves calls (port `{CALL}`) stops by itself; leave it out")
    if agent.mode == "singleton" and agent.standbys and not is_fenced(agent):
        # A process that asks no lease would serve beside its holder, and go on after losing its own.
        what = f"an agent that serves calls (`ports: {{{CALL}: auto}}`) or has a dead-man (`fence: deadman`)"
        yield written.at(name, ("standbys",), f"standbys take {what}")


def _failback(written: Written, name: str, agent: Agent) -> Iterator[str]:
    if agent.failback_window is None:
        return
    start, _, end = agent.failback_window.partition("-")
    if start == end:
        yield written.at(name, ("failback_window",), f"found {agent.failback_window}, which is no time; allowed: two")
    if agent.failback_s is None:
        yield written.at(name, ("failback_window",), "says when it goes home; that it does takes `failback_s`")


def _variables(written: Written, name: str, agent: Agent) -> Iterator[str]:
    for key in ("environment", "secrets"):
        for variable in getattr(agent, key):
            if not VARIABLE.match(variable):
                yield written.at(name, (key, variable), "is no variable name: letters, digits and _")


def _code(written: Written, name: str, agent: Agent) -> Iterator[str]:
    assert agent.code is not None
    given = [key for key in ("path", "wheel", "git") if getattr(agent.code, key)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield written.at(name, ("code",), f"found {found}, allowed: exactly one of path, wheel and git")
    elif agent.code.git and not agent.code.ref:
        yield written.at(name, ("code", "git"), "git needs `ref`: a commit, tag or branch")
    elif not agent.code.git:
        path = written.source.path.parent / str(getattr(agent.code, given[0]))
        if not path.exists():
            yield written.at(name, ("code", given[0]), f"{path} is not there")
        elif not (path.is_dir() if given == ["path"] else path.is_file()):
            yield written.at(name, ("code", given[0]), f"{path} is no {'folder' if given == ['path'] else 'file'}")


def _there(written: Written, name: str, agent: Agent, entry: str) -> Iterator[str]:
    """Needs, probes and ports as they are for the instance that fills `entry`."""
    here = agent_on(agent, entry)
    own = agent.on_host().get(entry)
    place: Place = ("needs",) if own is None or own.needs is None else ("hosts", entry, "needs")
    for index, need in enumerate(here.need_list()):
        if need.agent not in written.fleet.agents:
            near = nearest(need.agent, written.fleet.agents)
            yield written.at(name, (*place, index), f"needs `{need.agent}`, which no agent is called; {near}")
    for index, probe in enumerate(default_probes(here) if here.probes is None else here.probes):
        port = probe_port(here, probe)
        if probe.type in ("http", "tcp", "zmq", "call") and port not in here.ports:
            yield written.at(name, ("probes", index), f"asks the port `{port}`; {nearest(port, here.ports)}")
        if probe.type == "command" and not any(probe.command[:1]):
            yield written.at(name, ("probes", index), "a command probe needs `command`")
    users: dict[int, str] = {}
    for label, number in here.ports.items():
        if isinstance(number, int):
            if number in users:
                yield written.at(name, ("ports", label), f"port {number} is already `{users[number]}` of this agent")
            users.setdefault(number, label)


def name_problems(written: Written) -> Iterator[str]:
    """Consul names are DNS labels: `_` becomes `-` there, and case does not count."""
    seen: dict[str, str] = {}
    for name in written.fleet.agents:
        service = name.replace("_", "-").lower()
        if service == RESERVED:
            yield written.at(name, (), f"`{name}` is the service of Consul's own servers: choose another name")
        if service in seen:
            yield written.at(name, (), f"{name} and {seen[service]} would be one service in Consul: rename one")
        seen.setdefault(service, name)


def host_problems(written: Written, hosts: Sequence[Host]) -> Iterator[tuple[str, str]]:
    """Agent and problem: unknown hosts and groups, and fixed ports that meet on the one host left to them."""
    known = {host.name for host in hosts} | {group for host in hosts for group in host.groups}
    taken: dict[tuple[str, int], tuple[str, str]] = {}
    for name, agent in written.fleet.agents.items():
        for entry in tuple(agent.on_host()) or ("",):
            there = [host for host in hosts if not entry or host.answers_to(entry)]
            if entry and not there:
                near = nearest(entry, known)
                yield name, written.at(name, ("hosts",), f"no host or group `{entry}` in the inventory; {near}")
            there = [host for host in there if agent.labels.items() <= host.labels.items()]
            if len(there) == 1 and agent.instance_count():
                for label, port in _fixed(agent_on(agent, entry).ports):
                    user, its = taken.setdefault((there[0].name, port), (name, label))
                    if user != name:
                        text = f"port {port} on {there[0].name} is already that of {user}.ports.{its}"
                        yield name, written.at(name, ("ports", label), text)


def _fixed(ports: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    return ((label, port) for label, port in ports.items() if isinstance(port, int))


def secret_problems(written: Written) -> Iterator[str]:
    """Secrets that cannot be read on this machine. Their content is not looked at."""
    for name, agent in written.fleet.agents.items():
        for variable, path in agent.secrets.items():
            place = ("secrets", variable)
            if not os.path.isfile(path):
                yield written.at(name, place, f"found {path}, which is no file on this machine")
            elif not os.access(path, os.R_OK):
                yield written.at(name, place, f"{path} may not be read by this user")
