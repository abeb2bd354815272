"""The key by which the hosts of a migration, and no others, move its state: there from its start to its end. Pure."""

from __future__ import annotations

from outrider.migration.staged.records import Spec
from outrider.migration.staged.sight import Begin, End, GoBack, Hold
from outrider.registry.kv import Change
from outrider.registry.layout import MoveDoc, PlacementDoc, move_key


def key_changes(spec: Spec, action: Begin | GoBack | Hold | End, before: PlacementDoc, key: str) -> list[Change]:
    """What is written of it with an action, in one transaction with the placement that was as `before`.

    Nothing is expected to be there or not: what somebody left there, by restoring Consul for one, opens nothing.
    """
    hosts = tuple(sorted({spec.source.host, spec.target.host})) if spec.strategy == "state" else ()
    places = [move_key(host, spec.agent) for host in hosts]
    if isinstance(action, End):
        return [Change(place, None, None) for place in places]
    asks = action.doc.state_key_hash if isinstance(action, Begin) and action.doc else ""
    if asks and asks != before.state_key_hash:
        return [Change(place, MoveDoc(key, hosts), None) for place in places]
    return []
