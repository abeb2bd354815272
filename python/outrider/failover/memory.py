"""What this host has seen of each lease, on disk: neither epoch nor members may be forgotten with Consul's data."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from outrider.registry.leases import LeaseDoc


class LeaseMemory:
    """`<state_dir>/leases.json`: of each agent the document with the highest epoch. May be used from any thread."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "leases.json"
        self._lock = threading.Lock()
        self._docs: dict[str, LeaseDoc] = {}
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            self._docs = msgspec.json.decode(self._path.read_bytes(), type=dict[str, LeaseDoc])

    def last(self, agent: str) -> LeaseDoc | None:
        """The document with the highest epoch; None if none was ever seen."""
        return self._docs.get(agent)

    def saw(self, docs: Iterable[LeaseDoc]) -> None:
        """Keep those that are not older than what is known. Returns once they are on disk; raises OSError if not."""
        with self._lock:
            newer = {doc.agent: doc for doc in docs if self._is_news(doc)}
            if not newer:
                return
            known = {**self._docs, **newer}
            scratch = self._path.with_suffix(".tmp")
            with open(scratch, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(msgspec.json.encode(known))
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
            self._docs = known

    def _is_news(self, doc: LeaseDoc) -> bool:
        known = self._docs.get(doc.agent)
        if known is None or doc.epoch > known.epoch:
            return True
        return doc.epoch == known.epoch and doc.members != known.members
