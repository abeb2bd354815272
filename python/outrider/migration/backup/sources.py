"""What each level holds: an agent's documents, keys of Consul, a state folder, Consul whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import msgspec

from outrider.errors import BackupError
from outrider.host.config import Config
from outrider.host.launch import launch_of
from outrider.host.state import Kept
from outrider.migration.backup.keys import Key, agent_keys, fleet_keys, written_keys
from outrider.migration.backup.model import Entry, Subject
from outrider.migration.backup.objects import PIECE, Put
from outrider.migration.backup.secret_values import without_secrets
from outrider.migration.backup.tree import copied, size_of
from outrider.registry.client import Consul

KEYS = "keys.json"
SNAPSHOT = "consul.snap"
AGENT, PLACED, LAUNCHES = "agent.json", "placement.json", "launches"
SNAPSHOT_S = 120.0
Collected = tuple[tuple[Entry, ...], tuple[str, ...]]


class Source(Protocol):
    """One thing to back up. `collect` hands all content over and returns the entries, and what was left out."""

    @property
    def subject(self) -> Subject: ...

    def size(self) -> int: ...

    def collect(self, put: Put) -> Collected: ...


class StateSource:
    """`$OUTRIDER_STATE` of one instance on this host."""

    def __init__(self, config: Config, kept: Kept) -> None:
        placed = kept.placed
        self.folder = config.agent_state / placed.instance
        self.subject = Subject("state", config.host, kept.doc.fleet, kept.doc.name, placed.instance, placed.version)

    def size(self) -> int:
        """Bytes, before it is read. Raises BackupError."""
        if not self.folder.is_dir():
            raise BackupError(
                f"{self.subject.instance}: its state folder {self.folder} is not on this host",
                hint="an instance has one from its first start on: `outrider status`",
            )
        return size_of(self.folder)

    def collect(self, put: Put) -> Collected:
        """As it was at one instant, though the instance may run. Raises BackupError."""
        return copied(self.folder, put)


class _Files:
    """A level of a few files that are made up here, from what `read` says."""

    _files: dict[str, bytes] | None = None

    def read(self) -> dict[str, bytes]:
        """Path to content."""
        raise NotImplementedError

    def files(self) -> dict[str, bytes]:
        """Path to content, read once."""
        if self._files is None:
            self._files = self.read()
        return self._files

    def size(self) -> int:
        """Bytes of it. Raises BackupError, ConsulError."""
        return sum(map(len, self.files().values()))

    def collect(self, put: Put) -> Collected:
        """Nothing is ever left out."""
        folders = {".", *(path.rpartition("/")[0] or "." for path in self.files())}
        entries = [Entry(path, "folder", 0o700) for path in folders]
        entries += [_file(path, content, put) for path, content in self.files().items()]
        return tuple(sorted(entries, key=lambda entry: entry.path)), ()


class ConfigurationSource(_Files):
    """An agent's documents, and what its instances here were started with; of secrets only where they are."""

    def __init__(self, config: Config, consul: Consul, agent: str, here: Mapping[str, Kept]) -> None:
        self._config, self._consul, self._agent = config, consul, agent
        self._here = {name: kept for name, kept in here.items() if kept.doc.name == agent}
        version = next((kept.placed.version for kept in self._here.values()), "")
        self.subject = Subject("configuration", config.host, config.fleet, agent, version=version)

    def read(self) -> dict[str, bytes]:
        """Raises BackupError for an agent that is not published, ConsulError."""
        agent, placed = (msgspec.json.format(without_secrets(key.content)) for key in _both(self._consul, self._agent))
        files = {AGENT: agent, PLACED: placed}
        for name, kept in self._here.items():
            launch = launch_of(kept.doc, kept.placed, self._config, kept.ports, inherited={})
            files[f"{LAUNCHES}/{name}.json"] = msgspec.json.format(without_secrets(msgspec.json.encode(launch)))
        return files


class KeysSource(_Files):
    """The documents of one agent in Consul, or with no agent everything below `outrider/`."""

    def __init__(self, config: Config, consul: Consul, agent: str = "") -> None:
        self._consul, self._agent = consul, agent
        self.subject = Subject("kv", config.host, config.fleet, agent)

    def read(self) -> dict[str, bytes]:
        """Raises BackupError if the token may not read all of it, ConsulError."""
        return {KEYS: written_keys(_both(self._consul, self._agent) if self._agent else fleet_keys(self._consul))}


class SnapshotSource(_Files):
    """All of Consul, as a server gives it to the token for management."""

    def __init__(self, config: Config, consul: Consul) -> None:
        self._consul = consul
        self.subject = Subject("snapshot", config.host, config.fleet)

    def read(self) -> dict[str, bytes]:
        """Raises ConsulDenied without that token."""
        return {SNAPSHOT: self._consul.get("/v1/snapshot", timeout_s=SNAPSHOT_S).body}


def _both(consul: Consul, agent: str) -> list[Key]:
    keys = agent_keys(consul, agent)
    if len(keys) != 2:
        found = ", ".join(key.key for key in keys) or "no document"
        raise BackupError(
            f"agent {agent} is not published: found {found} of it in Consul",
            hint="`outrider agents` lists those that are",
        )
    return keys


def _file(path: str, content: bytes, put: Put) -> Entry:
    chunks = tuple(put.put(content[start : start + PIECE]) for start in range(0, len(content), PIECE))
    return Entry(path, "file", 0o600, size=len(content), sha256=hashlib.sha256(content).hexdigest(), chunks=chunks)
