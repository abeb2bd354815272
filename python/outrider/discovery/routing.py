"""Which instances of an agent may be called, by what is known of each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from outrider.discovery.records import Instance, Status

Evidence = Literal["passing", "warning", "suspected", "gone"]

_STATUS: dict[Evidence, Status] = {"passing": "passing", "warning": "warning", "suspected": "critical"}
_ORDER: dict[Evidence, int] = {"passing": 0, "warning": 1, "suspected": 2}


class Observed(Struct, frozen=True):
    """An instance and what is known of it: gone means certainly not there, suspected that it may still answer."""

    instance: Instance
    evidence: Evidence


def routing_set(observed: Sequence[Observed]) -> tuple[Instance, ...]:
    """The instances to route to, best evidence first, then by name.

    What is gone is never routed. What is only suspected is left out while anything better remains; when nothing does,
    the suspected stay (the panic rule: a mass failure, which is more often the observer's than theirs, never empties a
    routing set) and carry the status `critical`.
    """
    there = [seen for seen in observed if seen.evidence != "gone"]
    well = [seen for seen in there if seen.evidence != "suspected"]
    chosen = sorted(well or there, key=lambda seen: (_ORDER[seen.evidence], seen.instance.instance))
    return tuple(
        seen.instance
        if seen.instance.status == _STATUS[seen.evidence]
        else replace(seen.instance, status=_STATUS[seen.evidence])
        for seen in chosen
    )
