"""All that is done with the backups of one host, for the command line, the module `agent_backup` and migrations."""

from __future__ import annotations

import getpass
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from outrider.errors import BackupError, ConsulError, ConsulUnreachable, OutriderError
from outrider.host.config import Config
from outrider.host.state import KeptStore
from outrider.migration.backup.checks import self_check
from outrider.migration.backup.making import Clock, Made, foresee, make, verify
from outrider.migration.backup.model import LEVELS, WHOLE_FLEET, Backup, Level, Row, Subject, row_of
from outrider.migration.backup.record import publish
from outrider.migration.backup.restoring import Restored, into_consul, into_folder, into_state
from outrider.migration.backup.retention import Keep, outdated
from outrider.migration.backup.running import runs
from outrider.migration.backup.scratch_consul import find_program
from outrider.migration.backup.sources import ConfigurationSource, KeysSource, SnapshotSource, Source, StateSource
from outrider.migration.backup.vault import Vault
from outrider.registry.address import Address
from outrider.registry.client import Consul, connect

# The shim's user writes these names, and they become paths that root reads.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
SERVER_CONFIG = Path("/etc/consul.d/consul.json")


class Failed(Struct, frozen=True):
    """One backup that could not be made, or is damaged. `exit_code`: as the command line's."""

    subject: str
    level: str
    error: str
    hint: str
    exit_code: int


class Done(Struct, frozen=True):
    """One backup that was made, proved again, or left as it is; in check mode what would be. `backup`: None if new."""

    did: Literal["new", "proved", "nothing"]
    level: Level
    name: str
    backup: Row | None


class Outcome(Struct, frozen=True):
    """What a run over several did."""

    done: tuple[Done, ...]
    failed: tuple[Failed, ...] = ()
    warnings: tuple[str, ...] = ()


class Pruned(Struct, frozen=True):
    """Backups that went, or would; and how many objects that none needed any more."""

    removed: tuple[str, ...]
    objects: int = 0


class Desk:
    """One host's backups. `token_file`: for Consul, instead of the host's own; `program`: Consul's."""

    def __init__(
        self,
        config: Config,
        *,
        folder: Path | None = None,
        token_file: str = "",
        program: Path | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.config, self._token_file, self._clock = config, token_file, clock
        self.vault = Vault(folder or config.backups)
        self._check = self_check(program or find_program(config.runtime_dir.parent / "bin" / "consul"))

    def create(
        self, name: str = "", levels: Sequence[Level] = (), *, check_mode: bool = False,
        said: Callable[[str], None] = lambda text: None,
    ) -> Outcome:  # fmt: skip
        """Back up an agent or an instance, or all that this host has. What fails is named, and the rest is done."""
        made, failed, warnings = [], [], []
        for source in self._sources(name, levels):
            if isinstance(source, Failed):
                failed.append(source)
                continue
            subject = source.subject
            said(f"{subject.level} of {subject.name}")
            try:
                if check_mode:
                    made.append(foresee(self.vault, source, self._clock))
                else:
                    made.append(make(self.vault, source, self._check, self._clock))
            except OutriderError as error:
                failed.append(_failed(subject.name, subject.level, error))
        if not check_mode and any(each.did != "nothing" for each in made):
            warnings += self._publish({each.subject.agent for each in made})
        return Outcome(tuple(map(_done, made)), tuple(failed), tuple(warnings))

    def verify(self, name: str = "", said: Callable[[str], None] = lambda text: None) -> Outcome:
        """Restore backups into scratch once more: one by its id, those of an agent or an instance, or all."""
        made, failed = [], []
        agents = set[str]()
        for id in self._ids(name):
            said(id)
            try:
                backup = verify(self.vault, id, self._check, self._clock)
                made.append(Made("proved", backup.subject, backup))
                agents.add(backup.subject.agent)
            except OutriderError as error:
                failed.append(_failed(id, id.split(".")[1], error))
                agents |= _agents_of(id)
        return Outcome(tuple(map(_done, made)), tuple(failed), tuple(self._publish(agents)))

    def _ids(self, name: str) -> list[str]:
        if name in (names := self.vault.names()):
            return [name]
        # By the name of its folder: a damaged one is to be looked at, and cannot say whose it is.
        found = [id for id in names if not name or id.partition(".")[0] in (name, *self._instances(name))]
        if name and not found:
            raise BackupError(
                f"no backup {name} in {self.vault.root}", hint="`outrider backup list` shows those that are here"
            )
        return found

    def _instances(self, agent: str) -> set[str]:
        return {backup.subject.instance for backup in self.vault.all()[0] if backup.subject.agent == agent}

    def rows(self, name: str = "", level: Level | None = None) -> tuple[tuple[Row, ...], tuple[str, ...]]:
        """Those here, oldest first, and what is wrong with what cannot be read."""
        backups, wrong = self.vault.all()
        found = (b for b in backups if level in (None, b.subject.level) and (not name or name in _names(b.subject)))
        return tuple(map(row_of, found)), tuple(wrong)

    def choose(self, name: str, level: Level | None = None) -> Backup:
        """A backup by its id, or the last proved one of an agent or an instance. Raises BackupError."""
        if name in self.vault.names():
            return self.vault.load(name)
        backups, wrong = self.vault.all()
        found = [b for b in backups if name in _names(b.subject) and b.proof and level in (None, b.subject.level)]
        levels = sorted({backup.subject.level for backup in found})
        if len(levels) > 1:
            hint = f"say which: --level {levels[0]}"
            raise BackupError(f"{name} has backups of several levels: {', '.join(levels)}", hint=hint)
        if len(owners := sorted({backup.subject.name for backup in found})) > 1:
            raise BackupError(f"{name} has backups of several instances: {', '.join(owners)}", hint="name one of them")
        if not found:
            damaged = f"; {'; '.join(wrong)}" if wrong else ""
            at = f" at the level {level}" if level else ""
            raise BackupError(
                f"no backup of {name}{at} that counts, in {self.vault.root}{damaged}",
                hint="`outrider backup list` shows those that are here",
            )
        return found[-1]

    def restore(self, backup: Backup, to: Path | None = None, *, check_mode: bool = False) -> Restored:
        """Put it back, into the folder `to` or where it came from; in check mode only what that would change."""
        if to is not None:
            return Restored(backup.id, True, str(to)) if check_mode else into_folder(self.vault, backup, to)
        if backup.subject.level == "state":
            instance = backup.subject.instance
            folder = self.config.agent_state / instance
            return into_state(self.vault, backup, folder, lambda: runs(self.config, instance), check_mode=check_mode)
        return into_consul(self.vault, backup, self.consul(), _who(), check_mode=check_mode)

    def prune(self, keep: Keep, *, check_mode: bool = False) -> Pruned:
        """Remove backups that are outdated, and content that none needs. Raises BackupError."""
        if check_mode:
            return Pruned(tuple(backup.id for backup in outdated(self.vault.all()[0], keep)))
        with self.vault.alone():
            gone = outdated(self.vault.all()[0], keep)
            for backup in gone:
                self.vault.remove(backup.id)
            objects = self.vault.sweep()
        if gone:
            self._publish({backup.subject.agent for backup in gone})
        return Pruned(tuple(backup.id for backup in gone), objects)

    def _sources(self, name: str, levels: Sequence[Level]) -> Iterator[Source | Failed]:
        here = KeptStore(self.config.state_dir).load()
        here = {k: kept for k, kept in here.items() if _are_names(kept.placed.instance, kept.doc.name)}
        chosen = {key: kept for key, kept in here.items() if name in ("", key, kept.doc.name)}
        if name and not chosen:
            known = ", ".join(sorted(here)) or "none"
            raise BackupError(f"no agent or instance {name} on this host", hint=f"instances here: {known}")
        wanted = levels or LEVELS
        if "state" in wanted:
            yield from (StateSource(self.config, kept) for kept in chosen.values() if kept.doc.agent.state)
        consul = self.consul()
        for agent in sorted({kept.doc.name for kept in chosen.values()}):
            if "configuration" in wanted:
                yield ConfigurationSource(self.config, consul, agent, here)
            if "kv" in wanted and name:
                yield KeysSource(self.config, consul, agent)
        if not name and {"kv", "snapshot"} & set(wanted):
            yield from self._of_consul(consul, wanted, asked=bool(levels))

    def _of_consul(self, consul: Consul, levels: Sequence[Level], *, asked: bool) -> Iterator[Source | Failed]:
        """Consul whole: on its servers; elsewhere only if it was asked for by name."""
        try:
            server = asked or json.loads(consul.get("/v1/agent/self").body)["Config"]["Server"]
        except ConsulError as error:
            yield _failed("Consul", "", error)
            return
        if server and "kv" in levels:
            yield KeysSource(self.config, consul)
        if server and "snapshot" in levels:
            yield SnapshotSource(self.config, consul)

    def consul(self) -> Consul:
        """With the token for management where root finds one: on Consul's servers."""
        if self._token_file:
            return connect(self.config.consul.address().with_token_file(self._token_file))
        secured = self.config.supervisor == "systemd" and self.config.consul.token_file
        return connect((secured and server_address(SERVER_CONFIG)) or self.config.consul.address())

    def _publish(self, agents: set[str]) -> list[str]:
        """Tell the cluster. A backup is one whether others know of it or not: a failure is a warning."""
        backups, said = self.vault.all()
        for agent in sorted(agents):
            try:
                mine = [backup for backup in backups if backup.subject.agent == agent]
                publish(self.consul(), agent, self.config.host, mine)
            except OutriderError as error:
                if isinstance(error, ConsulUnreachable):
                    return [*said, f"other hosts do not know of these backups: {error.message}"]
                said.append(f"other hosts do not know of the backups of {agent or 'the fleet'}: {error.message}")
        return said


def server_address(file: Path) -> Address | None:
    """Where a Consul server answers, with the token for management: by its own configuration, for who may read that.

    Not by the shim's: the shim's user could have written there whom to tell the token.
    """
    try:
        settings = json.loads(file.read_bytes())
        tokens = settings["acl"]["tokens"]
        token = next(tokens[name] for name in ("initial_management", "master") if name in tokens)
        port = int(settings.get("ports", {}).get("http", 8500))
        return Address(settings.get("client_addr", "127.0.0.1"), port, token=token)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None


def _are_names(*words: str) -> bool:
    return all(_NAME.fullmatch(word) for word in words)


def _failed(subject: str, level: str, error: OutriderError) -> Failed:
    return Failed(subject, level, error.message, error.hint, error.exit_code)


def _done(made: Made) -> Done:
    return Done(made.did, made.subject.level, made.subject.name, row_of(made.backup) if made.backup else None)


def _names(subject: Subject) -> tuple[str, ...]:
    return (subject.name, subject.agent)


def _agents_of(id: str) -> set[str]:
    """Whose a damaged backup may be: an instance's name is its agent's and a number."""
    name, level = id.split(".")[:2]
    if name == WHOLE_FLEET and level in ("kv", "snapshot"):
        return {"", name}
    return {name, name.rpartition("-")[0] or name}


def _who() -> str:
    """Who restores, for the other one who is kept out."""
    try:
        return f"{getpass.getuser()}, outrider backup restore"
    except (KeyError, OSError):
        return f"{os.getuid()}, outrider backup restore"
