"""Putting a backup back: into a folder, into the state folder of an instance that does not run, or into Consul."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from outrider.errors import BackupDamaged, BackupError
from outrider.migration.backup.keys import Key, agent_keys, fleet_keys, key_of, read_keys
from outrider.migration.backup.model import Backup, content_digest
from outrider.migration.backup.objects import Counting, read
from outrider.migration.backup.secret_values import with_secrets
from outrider.migration.backup.sources import AGENT, KEYS, PLACED, SNAPSHOT
from outrider.migration.backup.tree import copied, put_back
from outrider.migration.backup.vault import Vault
from outrider.migration.diff import Shown, plain_text
from outrider.registry.client import Consul
from outrider.registry.kv import Change, put_docs
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, RUN_LOCK, PlacementDoc
from outrider.registry.lock import RunLock

ENDING_S = 6.0  # an agent has five seconds to end, by default
# What should be. Leases, locks and journals say what is, or was: an old one put back would be a lie that is acted on.
RESTORED = (FLEET, PLACEMENT, HOSTS)


class Restored(Struct, frozen=True):
    """What was put back, or would be.

    diff: of documents; kept: where what was there before is now; first: the command that is needed before
    """

    id: str
    changed: bool
    into: str
    diff: tuple[Shown, ...] = ()
    kept: str = ""
    left_alone: tuple[str, ...] = ()
    first: str = ""


def into_folder(vault: Vault, backup: Backup, to: Path) -> Restored:
    """Into a new or empty folder, complete or not at all. Raises BackupError."""
    if _is_there(backup, to):
        return Restored(backup.id, False, str(to))
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise BackupError(f"{to}: is there already, and not an empty folder", hint="give --to a new folder")
    with vault.alone():
        made = _made_beside(vault, backup, to)
        os.replace(made, to)
        vault.disk.sync(to.parent)
    return Restored(backup.id, True, str(to))


def into_state(
    vault: Vault, backup: Backup, folder: Path, runs: Callable[[], bool], *, check_mode: bool = False
) -> Restored:
    """In the place of an instance's state folder; what is there stays beside it. Raises BackupError while it runs."""
    if check_mode:
        first = f"outrider stop {backup.subject.instance}" if runs() else ""
        return Restored(backup.id, not _is_there(backup, folder), str(folder), first=first)
    _refuse_running(backup, runs, ENDING_S)
    if _is_there(backup, folder):
        return Restored(backup.id, False, str(folder))
    with vault.alone():
        made = _made_beside(vault, backup, folder)
        try:
            _refuse_running(backup, runs, 0.0)  # copying took its time
            kept = _moved_away(folder)
            os.replace(made, folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        vault.disk.sync(folder.parent)
    return Restored(backup.id, True, str(folder), kept=kept)


def _is_there(backup: Backup, folder: Path) -> bool:
    return folder.is_dir() and content_digest(copied(folder, Counting())[0]) == backup.manifest.source


def _refuse_running(backup: Backup, runs: Callable[[], bool], wait_s: float) -> None:
    """One that was just stopped is out of routing first, and ends then."""
    name, until = backup.subject.instance, time.monotonic() + wait_s
    while runs():
        if time.monotonic() < until:
            time.sleep(0.05)
            continue
        raise BackupError(
            f"{name} runs: its state is not replaced under it", hint=f"`outrider stop {name}`, then run it again"
        )


def _moved_away(folder: Path) -> str:
    if not folder.exists():
        return ""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    kept = folder.with_name(f"{folder.name}.before-{stamp}")
    os.replace(folder, kept)
    return str(kept)


def _made_beside(vault: Vault, backup: Backup, to: Path) -> Path:
    """The whole backup in a hidden folder beside its place. Raises BackupDamaged naming backup and file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        put_back(backup.manifest.entries, made, lambda digest, of: read(vault.objects, digest, of))
        for root, _, files in os.walk(made):
            for path in (root, *(os.path.join(root, name) for name in files)):
                if not os.path.islink(path):
                    vault.disk.sync(Path(path))
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, BackupDamaged):
            hint = error.hint or "nothing was replaced; take another one: `outrider backup list`"
            raise BackupDamaged(f"backup {backup.id}: {error.message}", hint=hint) from error
        raise
    return made


class KeyPlan(Struct, frozen=True):
    """Keys that would be written, each with the index that it was read at."""

    changes: tuple[Change, ...]
    diff: tuple[Shown, ...]
    left_alone: tuple[str, ...]


def plan_keys(wanted: Sequence[Key], current: dict[str, tuple[bytes, int]]) -> KeyPlan:
    """What differs. Keys that the backup lacks are left alone, and named. Pure.

    Raises BackupError for an agent that a migration is moving: its placement is that one's until it has ended.
    """
    changes, diff, alone = [], [], []
    for key in map(settled, wanted):
        if not key.key.startswith(RESTORED):
            alone.append(key.key)
            continue
        there, index = current.get(key.key, (b"", 0))
        if moving := _migration(key.key, there):
            hint = f"`outrider migrate watch {moving}` waits for it, `migrate rollback {moving}` ends it"
            raise BackupError(f"{key.key} is being changed by migration {moving}", hint=hint)
        if there != key.content:
            changes.append(Change(key.key, Raw(key.content), index))
            diff.append(Shown(f"{key.key} (in Consul)", f"{key.key} (in the backup)", _text(there), _text(key.content)))
    mine = {key.key for key in wanted}
    return KeyPlan(tuple(changes), tuple(diff), tuple(sorted([*alone, *(current.keys() - mine)])))


def settled(key: Key) -> Key:
    """A placement without the marks of a migration that was under way: nobody would ever take them off again."""
    if not key.key.startswith(PLACEMENT):
        return key
    doc = msgspec.json.decode(key.content, type=PlacementDoc)
    instances = tuple(replace(placed, weight=1.0, reserve=False) for placed in doc.instances)
    plain = PlacementDoc(doc.agent, instances, doc.reason, doc.since)
    return key if plain == doc else key_of(key.key, msgspec.json.encode(plain))


def _migration(key: str, content: bytes) -> str:
    """Which one is moving an agent, by its placement."""
    if not content or not key.startswith(PLACEMENT):
        return ""
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(content, type=PlacementDoc).migration
    return ""


def _text(content: bytes) -> str:
    try:
        return plain_text(msgspec.json.decode(content)) if content else ""
    except msgspec.MsgspecError:
        return f"{len(content)} bytes that are no document\n"


def into_consul(vault: Vault, backup: Backup, consul: Consul, who: str, *, check_mode: bool = False) -> Restored:
    """By check-and-set, while nobody else works on the fleet. Raises BackupError, Locked, ConsulError."""
    if backup.subject.level == "snapshot":
        raise BackupError(
            f"backup {backup.id}: a snapshot replaces all of Consul, which is not done from here",
            hint=f"--to DIR, then on a server: consul snapshot restore DIR/{SNAPSHOT}",
        )
    plan = _planned(vault, backup, consul)
    done = Restored(backup.id, bool(plan.changes), str(consul.address), plan.diff, "", plan.left_alone)
    if check_mode or not plan.changes:
        return done
    with RunLock(consul, RUN_LOCK, who) as lock:
        lock.check()
        put_docs(consul, plan.changes)
    return done


def _planned(vault: Vault, backup: Backup, consul: Consul) -> KeyPlan:
    with tempfile.TemporaryDirectory(prefix="outrider-restore-") as made:
        folder = _made_beside(vault, backup, Path(made) / "backup")
        agent = backup.subject.agent
        current = _current(consul, agent)
        if backup.subject.level == "kv":
            return plan_keys(read_keys(folder / KEYS), current)
        there = current.get(FLEET + agent, (b"", 0))[0]
        document = with_secrets((folder / AGENT).read_bytes(), there or None, agent)
        placement = msgspec.json.format((folder / PLACED).read_bytes(), indent=-1)
        return plan_keys([key_of(FLEET + agent, document), key_of(PLACEMENT + agent, placement)], current)


def _current(consul: Consul, agent: str) -> dict[str, tuple[bytes, int]]:
    keys = agent_keys(consul, agent) if agent else fleet_keys(consul)
    return {key.key: (key.content, key.index) for key in keys}
