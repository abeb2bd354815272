"""When a person may give up what a new instance accepted, and what the journal says of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from outrider.migration.staged.loss import loss_said, lost_since, not_lost
from outrider.migration.staged.records import End as Place
from outrider.migration.staged.records import Journal, Spec, next_entry
from outrider.registry.leases import Lease, LeaseDoc, Member

SPEC = Spec("m", "A", "state", Place("A-1", "h1", "v1"), Place("A-2", "h2", "v1"), at=50.0)
LEASE = Lease(LeaseDoc("A", 2, "A-2", "h2", state="held"), 7)


def journal() -> Journal:
    found = Journal(SPEC)
    for number, step in enumerate(("start", "copy", "hand over", "verify")):
        entry = next_entry(found, "begun", 1_700_000_000.0 + number, "h1", step=step)
        found = found.followed_by(entry)
    return found


def test_a_lost_host_that_holds_nothing_any_more_is_given_up() -> None:
    assert not_lost(journal(), LEASE, {"h2"}) == ""
    assert not_lost(journal(), replace(LEASE, doc=replace(LEASE.doc, state="released")), {"h2"}) == ""


@pytest.mark.parametrize(
    ("lease", "lost", "why"),
    [
        (LEASE, set(), "h2 is not lost, and has what A-2 accepted: `outrider migrate resolve m --back` is enough"),
        (replace(LEASE, session="s"), {"h2"}, "h2 may still hold the lease: wait until Consul has ended its session"),
        (LEASE, {"h1", "h2"}, "h1 is lost too"),
        (None, {"h2"}, "A-1 has all that was accepted: `outrider migrate resolve m --back` is enough"),
        (Lease(LeaseDoc("A", 3, "A-1", "h1"), 7), {"h2"}, "A-1 has all"),
        (Lease(LeaseDoc("A", 2, "A-2", "h2", heir=Member("A-1", "h1")), 7), {"h2"}, "A-1 has all"),
    ],
)
def test_it_is_refused_where_nothing_need_be_lost(lease: Any, lost: set[str], why: str) -> None:
    assert not_lost(journal(), lease, lost).startswith(why)


def test_without_state_nothing_is_lost() -> None:
    single = replace(journal(), spec=replace(SPEC, strategy="singleton"))
    assert not_lost(single, LEASE, {"h2"}).startswith("it takes no state along")


def test_the_loss_is_named_from_the_moment_of_the_hand_over() -> None:
    assert lost_since(journal()) == 1_700_000_002.0
    assert loss_said(journal(), "ann", "burnt") == (
        "ann gave up what A-2 on h2 accepted since 2023-11-14 22:13:22 UTC: burnt"
    )
