"""The risk of moving one agent, or each: reads documents, code and observations, and assesses."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import OutriderError
from outrider.fleet.inventory import open_inventory
from outrider.fleet.load import load_fleet
from outrider.fleet.placement import place
from outrider.migration.risk.assess import Risk, assess
from outrider.migration.risk.change import Change, compare, configured
from outrider.migration.risk.gather import Shim, observe, read_published
from outrider.migration.risk.landing import leaving
from outrider.migration.risk.observed import Observations, Published, Question
from outrider.migration.risk.prometheus import Prometheus
from outrider.migration.risk.source import SourceFacts, read_source
from outrider.registry.client import Consul
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc

Code = Callable[[AgentDoc], Path | str]
"""Where the code of an agent lies, or why that is not known."""

NOTHING = Change(0, 0)


class Asked(Struct, frozen=True):
    """What people ask.

    source: the agent's code; new: the code that shall replace it
    doc: the agent's document as it will be, with the one before; None: as it is published
    See Question for the rest.
    """

    agent: str = ""
    target: str = ""
    source: Path | None = None
    new: Path | None = None
    readable: bool | None = None
    instance: str = ""
    doc: AgentDoc | None = None


def of_running(
    consul: Consul, shim: Shim, asked: Asked, *, releases: Path | None = None, prometheus: str = ""
) -> list[Risk]:
    """Of a running fleet. `releases`: this host's folder of installed code. Raises OutriderError, ConsulError."""
    where = Prometheus(prometheus) if prometheus else None
    published = read_published(consul)
    return risks(
        published, observe(consul, shim, published, time.time(), prometheus=where), asked, _installed(releases)
    )


def of_file(path: Path | None, inventory: Path | None, asked: Asked) -> list[Risk]:
    """Of a fleet file, nothing of which need run. Raises FleetError, OutriderError."""
    opened = open_inventory(path, inventory)
    fleet = load_fleet(opened.fleet_file, opened.hosts)
    slots = place(fleet, opened.hosts, {}) if opened.hosts else {}
    published = Published(
        {name: AgentDoc(name, fleet.name, agent, "") for name, agent in fleet.agents.items()},
        {
            name: PlacementDoc(name, tuple(Placed(slot.instance, slot.host, "", slot.entry) for slot in them))
            for name, them in slots.items()
        },
        {host.name: HostDoc(host) for host in opened.hosts or ()},
    )
    return risks(published, Observations(time.time(), running=False), asked, _beside(opened.fleet_file.parent))


def risks(published: Published, observed: Observations, asked: Asked, code: Code) -> list[Risk]:
    """Of the agent that was asked about, or of each, the riskiest first."""
    if asked.doc:
        published = replace(published, agents={**published.agents, asked.doc.name: asked.doc})
    read = cache(_read)
    found = []
    for name in [asked.agent] if asked.agent else sorted(published.agents):
        question = Question(name, asked.target, asked.instance, readable=asked.readable)
        if name in published.agents:
            place_of = asked.source or code(published.agents[name])
            facts, why = read(place_of)
            question = replace(question, source=facts, unread=why)
            at_version = _at_version(question, published, code)
            question = _changed(question, place_of, asked.new) if asked.new else at_version
        found.append(assess(published, observed, question))
    return sorted(found, key=lambda risk: (-risk.points, risk.agent))


def _read(folder: Path | str) -> tuple[SourceFacts | None, str]:
    if isinstance(folder, str):
        return None, folder
    try:
        return read_source(folder), ""
    except OSError as error:
        return None, f"{folder}: {error.strerror}"
    except ValueError as error:
        return None, str(error)


def _changed(question: Question, old: Path | str, new: Path, besides: Change = NOTHING) -> Question:
    """What will run is the new code; files that the old one kept are still there."""
    if isinstance(old, str):
        raise OutriderError(f"what {new} differs from is not known: {old}", hint="name the present code with --source")
    change = _compared(old, new)
    change = Change(change.lines + besides.lines, change.files + besides.files, change.opaque)
    facts, why = _read(new)
    before, _ = _read(old)
    if facts and before:
        databases = dict.fromkeys((*facts.databases, *before.databases))
        facts = replace(facts, databases=tuple(databases))
    return replace(question, source=facts, unread=why, change=change)


def _at_version(question: Question, published: Published, code: Code) -> Question:
    """What leaves may be of another version than what will run: the documents differ, and perhaps the code."""
    doc = published.agents[question.agent]
    leaves = leaving(published, question.agent, question.target, question.instance)
    if leaves is None or leaves.version == doc.version:
        return question
    was = doc.at(leaves.version)
    if was is None:
        return replace(question, change=f"nothing is known of version {leaves.version[:8]}, which runs")
    change = configured(was, doc)
    if was.release == doc.release:
        return replace(question, change=change)
    old, new = code(was), code(doc)
    if isinstance(old, str) or isinstance(new, str):
        return replace(question, change=old if isinstance(old, str) else str(new))
    try:
        return _changed(question, old, new, change)
    except OutriderError as error:
        return replace(question, change=error.message)


def _compared(old: Path, new: Path) -> Change:
    try:
        return compare(old, new)
    except OSError as error:
        raise OutriderError(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise OutriderError(str(error)) from error


def _installed(releases: Path | None) -> Code:
    def code(doc: AgentDoc) -> Path | str:
        if not doc.release:
            return "the fleet file names no code (--source)"
        folder = releases / doc.release if releases else None
        return folder if folder and folder.is_dir() else f"release {doc.release[:12]} is not on this host (--source)"

    return code


def _beside(base: Path) -> Code:
    def code(doc: AgentDoc) -> Path | str:
        named = doc.agent.code
        if named is None:
            return "the fleet file names no code (--source)"
        return base / named.path if named.path is not None else "its code is not a folder (--source)"

    return code
