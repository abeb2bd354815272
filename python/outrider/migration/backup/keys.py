"""Keys of Consul as a backup keeps them."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
from msgspec import Struct

from outrider.errors import BackupDamaged, BackupError, ConsulDenied
from outrider.registry.client import Consul, decode
from outrider.registry.layout import BACKUPS, FLEET, MOVES, PLACEMENT, PUBLISHED
from outrider.registry.leases import LEASES

PREFIX = "outrider/"
# Who holds what now, keys that are used once, which backups there are, and that all documents are there, which only a
# publication knows: none is ever put back, and each run would find them changed.
OF_THE_MOMENT = (LEASES, "outrider/locks/", MOVES, BACKUPS, PUBLISHED)


class Key(Struct, frozen=True):
    """One key. `value`: as Consul tells it, in base64; `index`: its ModifyIndex when it was read."""

    key: str
    value: str
    index: int = 0

    @property
    def content(self) -> bytes:
        """The value itself."""
        return base64.b64decode(self.value)


class _Pair(Struct):
    Key: str
    ModifyIndex: int
    Value: str | None = None


def key_of(key: str, content: bytes) -> Key:
    """A key that is to be."""
    return Key(key, base64.b64encode(content).decode())


def agent_keys(consul: Consul, agent: str) -> list[Key]:
    """Both documents of an agent, or those that there are. Raises ConsulError.

    Each is asked for by name: one that the token may not read is refused, and not left out.
    """
    return [key for name in (FLEET, PLACEMENT) for key in _read(consul, name + agent)]


def fleet_keys(consul: Consul) -> list[Key]:
    """Everything below `outrider/`. Raises BackupError if the token may not read all of it, ConsulError."""
    try:
        consul.get(f"/v1/kv/{PREFIX}")  # a list leaves out what the token may not read; a single key is refused
        return _read(consul, PREFIX, {"recurse": ""})
    except ConsulDenied as error:
        raise BackupError(
            f"the token may not read all keys below {PREFIX}: a backup would lack some, without a word",
            hint="run it as root on a Consul server, which has the token for management, or give --token-file FILE",
        ) from error


def _read(consul: Consul, key: str, params: dict[str, str] | None = None) -> list[Key]:
    body = consul.get(f"/v1/kv/{key}", params=params).body
    return [Key(pair.Key, pair.Value or "", pair.ModifyIndex) for pair in (decode(body, list[_Pair]) if body else [])]


def written_keys(keys: list[Key]) -> bytes:
    """As a file. The same keys are the same file, whenever they were written."""
    plain = [{"key": key.key, "value": key.value} for key in keys if not key.key.startswith(OF_THE_MOMENT)]
    return msgspec.json.format(msgspec.json.encode(plain))


def read_keys(path: Path) -> list[Key]:
    """The keys that a restored backup holds. Raises BackupDamaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Key])
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupDamaged(f"{path.name}: holds no keys of Consul: {error}") from error
