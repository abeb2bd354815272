"""What an absent document means: a publication removed it, or Consul lost it.

Nothing that runs may end because Consul's data is gone. So an absent document counts as removed only beside the number
of a publication that went through (`registry/published.py`), read in the same answer and not lower than any that this
host has seen. A Consul that was wiped has none, also while the documents come back one by one; one that was restored
from a snapshot of before has a lower one. Consul's indexes tell neither: they count anew, and one who looked away
meanwhile may find them past all that it saw. What is there is always obeyed; what is absent otherwise stays as it was.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from outrider.registry.layout import AgentDoc, PlacementDoc

log = logging.getLogger("outrider.feed")


class Publications:
    """`<state_dir>/published`: the highest number seen here, also by earlier shims."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "published"
        self._highest = 0
        with contextlib.suppress(OSError, ValueError):
            self._highest = int(self._path.read_text())

    def removed_the_absent(self, number: int) -> bool:
        """Whether what is absent beside this number was removed; 0 is none."""
        if number > self._highest:
            self._highest = number
            self._keep()
        return 0 < number == self._highest

    def _keep(self) -> None:
        """Losing it costs no more than that a shim which starts after a restore takes the snapshot for the newest."""
        scratch = self._path.with_suffix(".tmp")
        try:
            scratch.write_text(str(self._highest))
            os.replace(scratch, self._path)
        except OSError as error:
            log.warning("the number of the last publication cannot be kept on disk: %s", error.strerror)


def joined(
    known: tuple[Mapping[str, AgentDoc], Mapping[str, PlacementDoc]],
    read: tuple[Mapping[str, AgentDoc], Mapping[str, PlacementDoc]],
    *,
    whole: bool,
) -> tuple[dict[str, AgentDoc], dict[str, PlacementDoc]]:
    """What was known and what Consul says now, by agent. `whole`: an absent placement was removed.

    Both documents go in one transaction but are read apart: that of an agent is known as long as its placement is.
    """
    placements = dict(read[1]) if whole else {**known[1], **read[1]}
    kept = {name: doc for name, doc in known[0].items() if name in placements}
    return {**kept, **read[0]}, placements
