"""What the whole cluster may know of backups: KV `outrider/backups/<agent>`, the last proved one of each level.

Contents never leave their host; that one exists, where, and when it was last restored does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from msgspec import Struct

from outrider.errors import ConsulConflict
from outrider.migration.backup.model import Backup, Level
from outrider.migration.risk.score import Measure
from outrider.registry.client import Consul
from outrider.registry.kv import Change, get_doc, list_docs, put_docs
from outrider.registry.layout import BACKUPS, FLEET, AgentDoc

WHOLE = ".fleet"  # no agent can be called so
ATTEMPTS = 5
WEEK_S = 7 * 86400.0


class Kept(Struct, frozen=True):
    """One proved backup. `bytes`: of what it holds."""

    id: str
    host: str
    verified_at: float
    bytes: int


class BackupsDoc(Struct, frozen=True):
    """`outrider/backups/<agent>`. By level; state by `state` and the instance, as several have one: `state/A-1`."""

    levels: dict[str, Kept]


class Standing(Struct, frozen=True):
    """How an agent stands. `proved`: as in BackupsDoc, those in time; `lacking`: wanted levels, each with why not.

    age_s: of the oldest proof that is counted; None if one is lacking
    """

    agent: str
    proved: dict[str, Kept]
    lacking: dict[str, str]
    age_s: float | None

    @property
    def proven(self) -> bool:
        """Whether every wanted level was restored in time."""
        return not self.lacking

    def measure(self) -> Measure:
        """For the risk of a migration: 1 if something is lacking."""
        if self.lacking:
            return Measure(1, "; ".join(f"{level}: {why}" for level, why in sorted(self.lacking.items())))
        said = (f"{name} {kept.id} on {kept.host}" for name, kept in sorted(self.proved.items()))
        return Measure(0, "restored in time: " + ", ".join(said))


class Known(Struct, frozen=True):
    """One proved backup of the cluster. `agent` is empty for the whole fleet; `level` as in BackupsDoc."""

    agent: str
    level: str
    id: str
    host: str
    verified_at: float
    bytes: int


def known_everywhere(consul: Consul, agent: str = "") -> tuple[Known, ...]:
    """What the cluster knows, of one agent or of all. Raises ConsulError."""
    docs = list_docs(consul, BACKUPS, BackupsDoc).docs
    return tuple(
        Known("" if name == WHOLE else name, level, kept.id, kept.host, kept.verified_at, kept.bytes)
        for name, (doc, _) in sorted(docs.items())
        for level, kept in sorted(doc.levels.items())
        if agent in ("", name)
    )


def slot(backup: Backup) -> str:
    """Its name among the levels of the document."""
    subject = backup.subject
    return f"{subject.level}/{subject.instance}" if subject.instance else subject.level


def publish(consul: Consul, agent: str, host: str, backups: Iterable[Backup]) -> bool:
    """Write what this host has of an agent; what other hosts wrote stays. Whether something changed.

    `agent` is empty for the whole fleet. Raises ConsulError.
    """
    mine = {slot(backup): _kept(backup) for backup in backups if backup.proof}  # the last of a slot counts
    for attempt in range(ATTEMPTS):
        doc, index = get_doc(consul, BACKUPS + (agent or WHOLE), BackupsDoc)
        before = doc.levels if doc else {}
        others = {name: kept for name, kept in before.items() if kept.host != host}
        # Of a level that several hosts have, the freshest proof stands.
        newer = {name: kept for name, kept in mine.items() if name not in others or not _later(others[name], kept)}
        after = others | newer
        if after == before:
            return False
        try:
            put_docs(consul, [Change(BACKUPS + (agent or WHOLE), BackupsDoc(after) if after else None, index)])
            return True
        except ConsulConflict:
            if attempt == ATTEMPTS - 1:
                raise
    return False


def _later(one: Kept, other: Kept) -> bool:
    return one.verified_at > other.verified_at


def _kept(backup: Backup) -> Kept:
    return Kept(backup.id, backup.subject.host, backup.verified_at, backup.manifest.size)


def prove(
    consul: Consul,
    agent: str,
    levels: Sequence[Level],
    *,
    instances: Sequence[str] = (),
    within_s: float = WEEK_S,
    now: float | None = None,
) -> Standing:
    """Whether an agent's backups of these levels were proved by a restore lately. Raises ConsulError.

    instances: those whose state is asked for; by default all that have one. An agent without state needs none.
    """
    now = time.time() if now is None else now
    doc, _ = get_doc(consul, BACKUPS + agent, BackupsDoc)
    whole, _ = get_doc(consul, BACKUPS + WHOLE, BackupsDoc)
    described, _ = get_doc(consul, FLEET + agent, AgentDoc)
    stateless = described is not None and not described.agent.state
    known = {**_of_fleet(whole), **(doc.levels if doc else {})}
    wanted = [name for level in levels for name in _slots(level, known, instances, stateless=stateless)]
    return stands(agent, known, wanted, within_s=within_s, now=now)


def _of_fleet(whole: BackupsDoc | None) -> dict[str, Kept]:
    """A backup of all keys, or of Consul whole, holds every agent's documents."""
    return whole.levels if whole else {}


def _slots(level: Level, known: dict[str, Kept], instances: Sequence[str], *, stateless: bool) -> list[str]:
    if level != "state":
        return [level]
    if stateless:
        return []
    return [f"state/{name}" for name in instances] or [name for name in known if name.startswith("state/")] or ["state"]


def stands(agent: str, known: dict[str, Kept], wanted: Iterable[str], *, within_s: float, now: float) -> Standing:
    """The judgement itself. Pure."""
    proved, lacking = {}, {}
    for name in wanted:
        kept = known.get(name)
        if kept is None:
            lacking[name] = "no backup is known"
        elif now - kept.verified_at > within_s:
            days = (now - kept.verified_at) / 86400
            lacking[name] = f"{kept.id} on {kept.host} was last restored {days:.1f} days ago"
        else:
            proved[name] = kept
    oldest = min((kept.verified_at for kept in proved.values()), default=now)
    return Standing(agent, proved, lacking, None if lacking else max(0.0, now - oldest))
