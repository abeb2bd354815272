"""From a fleet file to the definition that is published: one plain document, the same on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from outrider.errors import FleetError, ReleaseError
from outrider.fleet.effective import version_of
from outrider.fleet.load import load_fleet
from outrider.fleet.spec import Agent, Code, Fleet, Host
from outrider.registry.layout import AgentDoc


class Definition(Struct, frozen=True, omit_defaults=True):
    """A validated fleet and the hosts that it was validated against. Plain JSON both ways."""

    name: str
    agents: dict[str, Agent]
    hosts: tuple[Host, ...] = ()
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fleet(self) -> Fleet:
        """The fleet without its hosts."""
        return Fleet(self.name, self.agents, self.groups)


class CodeSource(Struct, frozen=True):
    """Code that at least one agent runs. `key` names it among all sources; paths in `code` are relative to `base`."""

    key: str
    type: Literal["path", "wheel", "git"]
    code: Code
    base: str


def compile_fleet(path: Path, hosts: Iterable[Mapping[str, Any]]) -> Definition:
    """Read and validate a fleet file against `hosts`, as the inventory describes them.

    Raises FleetError with every problem found.
    """
    known = read_hosts(hosts)
    fleet = load_fleet(path, known)
    return Definition(fleet.name, fleet.agents, tuple(known), fleet.groups)


def read_hosts(hosts: Iterable[Mapping[str, Any]]) -> list[Host]:
    """Hosts as inventory variables give them: numbers may be text there. Raises FleetError."""
    found, problems = [], []
    for raw in hosts:
        given = {key: value for key, value in raw.items() if value is not None}
        try:
            found.append(msgspec.convert(given, Host, strict=False))
        except msgspec.ValidationError as error:
            problems.append(f"host {raw.get('name', raw)}: {error}")
    if problems:
        raise FleetError(problems, hint="mend the host's outrider_* variables in the inventory")
    return found


def read_definition(raw: Any) -> Definition:
    """A definition that went through Ansible. Raises FleetError if it is none."""
    try:
        return msgspec.convert(raw, Definition)
    except msgspec.ValidationError as error:
        hint = "pass `definition` on as `state: validated` returned it"
        raise FleetError([f"the definition is not a compiled fleet: {error}"], hint=hint) from error


def source_key(code: Code) -> str:
    """The name of a code source among all sources of one fleet file."""
    kind = source_type(code)
    key = f"git:{code.git}@{code.ref}" if kind == "git" else f"{kind}:{getattr(code, kind)}"
    return f"{key}#{code.sha256}" if code.sha256 else key


def source_type(code: Code) -> Literal["path", "wheel", "git"]:
    """Which of the three it is; a validated Code is exactly one."""
    if code.path is not None:
        return "path"
    return "wheel" if code.wheel is not None else "git"


def code_sources(definition: Definition, base: Path) -> list[CodeSource]:
    """The distinct code sources of a fleet, by key. `base`: the folder of the fleet file."""
    codes = {source_key(agent.code): agent.code for agent in definition.agents.values() if agent.code}
    folder = os.path.abspath(base)
    return [CodeSource(key, source_type(code), code, folder) for key, code in sorted(codes.items())]


def agent_docs(definition: Definition, releases: Mapping[str, str]) -> dict[str, AgentDoc]:
    """The document of each agent. `releases`: source key to digest. Raises ReleaseError naming what has no digest."""
    lacking = {source_key(a.code) for a in definition.agents.values() if a.code} - releases.keys()
    if lacking:
        raise ReleaseError(
            f"no release was packed of {', '.join(sorted(lacking))}",
            hint="pack `sources` of the same run with the module agent_release and pass its `digests`",
        )
    docs = {}
    for name, agent in definition.agents.items():
        release = releases[source_key(agent.code)] if agent.code else ""
        docs[name] = AgentDoc(name, definition.name, agent, version_of(agent, release), release)
    return docs
