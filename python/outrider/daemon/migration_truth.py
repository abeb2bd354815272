"""What Consul's leader says of one migration, read at once before a write that depends on all of it."""

from __future__ import annotations

from msgspec import Struct

from outrider.migration.staged.journal import read_one
from outrider.migration.staged.records import Journal, Spec
from outrider.registry.client import Consul
from outrider.registry.kv import Guard, get_doc
from outrider.registry.layout import FLEET, PLACEMENT, RUN_LOCK, AgentDoc, PlacementDoc
from outrider.registry.leases import LEASES, Lease, decode_leases
from outrider.registry.lock import lock_state


class Truth(Struct, frozen=True):
    """A migration's documents. `index`: the placement's.

    busy: why nothing may be written now; guards: of what must stay as it was read, beside these documents
    """

    journal: Journal
    placement: PlacementDoc
    index: int
    agent: AgentDoc | None
    lease: Lease | None
    busy: str = ""
    guards: tuple[Guard, ...] = ()


def read_truth(consul: Consul, spec: Spec) -> Truth:
    """Raises ConsulError, UnknownMigration."""
    run = lock_state(consul, RUN_LOCK)
    who = f"{run.holder.who} on {run.holder.host}" if run.holder else "somebody"
    journal = read_one(consul, spec.id)
    placement, index = get_doc(consul, PLACEMENT + spec.agent, PlacementDoc)
    agent, published = get_doc(consul, FLEET + spec.agent, AgentDoc)
    leases, _ = decode_leases(consul.get(f"/v1/kv/{LEASES}{spec.agent}"))
    unchanged = {RUN_LOCK: run.index, FLEET + spec.agent: published}
    return Truth(
        journal,
        placement or PlacementDoc(spec.agent),
        index,
        agent if placement else None,
        leases.get(spec.agent),
        busy=f"a run of {who} is at work on the fleet; it goes first" if run.session else "",
        guards=tuple(Guard(key, index=index) for key, index in unchanged.items() if index),
    )
