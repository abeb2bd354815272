"""A little state on disk that is never torn: written beside, synced, renamed."""

from __future__ import annotations

import json
import os
import threading
import time

from wire import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEPT_ITEMS = 20
MAX_ITEM_BYTES = 4096


class StateFile:
    """A counter and the last KEPT_ITEMS items. Without a folder they live in memory only."""

    def __init__(self, folder: str) -> None:
        """Reads what is there. Raises OSError or ValueError if a file is there that cannot be used."""
        self._path = os.path.join(folder, "state.json") if folder else ""
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {"counter": 0, "items": [], "updated": 0.0}
        if folder:
            os.makedirs(folder, exist_ok=True)
            self._load()

    def snapshot(self) -> dict[str, Any]:
        """counter, items (newest last), updated (Unix seconds), durable (true if it is kept on disk)."""
        return {**self._state, "durable": bool(self._path)}

    def add(self, document: dict[str, Any]) -> dict[str, Any]:
        """Count one, or `add`, and keep `item` if there is one. It is on disk when this returns. Raises Refused."""
        step = document.get("add", 1)
        if isinstance(step, bool) or not isinstance(step, int) or abs(step) > 10**9:
            raise Refused(422, f"add is {step!r}: a whole number up to 1e9 is expected")
        if len(json.dumps(document.get("item"))) > MAX_ITEM_BYTES:
            raise Refused(413, f"item is larger than {MAX_ITEM_BYTES} bytes as JSON")
        with self._lock:
            items = [*self._state["items"], document["item"]] if "item" in document else self._state["items"]
            counter = self._state["counter"] + step
            state = {"counter": counter, "items": items[-KEPT_ITEMS:], "updated": time.time()}
            if self._path:
                self._write(state)
            self._state = state  # only what is on disk is ever shown
        return self.snapshot()

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                state = json.load(file)
        except FileNotFoundError:
            return
        except ValueError as error:
            raise ValueError(f"{self._path} is not JSON ({error}); move it away to begin anew") from error
        if not (
            isinstance(state, dict) and isinstance(state.get("counter"), int) and isinstance(state.get("items"), list)
        ):
            raise ValueError(f"{self._path} is not the state of a sample agent; move it away to begin anew")
        self._state = state

    def _write(self, state: dict[str, Any]) -> None:
        scratch = f"{self._path}.tmp"
        try:
            with open(scratch, "w") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, self._path)
            folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)  # without it the rename may be lost with the power
            finally:
                os.close(folder)
        except OSError as error:
            raise Refused(507, f"the state is unchanged: {error.filename or scratch}: {error.strerror}") from error
