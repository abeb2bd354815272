"""A new host that is lost with the state it was handed: a person says that it never comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from integration.shim.migrating import Fleet, ledger
from outrider.errors import MigrationRefused
from outrider.fleet.spec import Host
from outrider.migration.staged import edits
from outrider.migration.staged.journal import entry_change, spec_change
from outrider.migration.staged.records import End, Journal, Spec, next_entry
from outrider.migration.staged.report import report_of
from outrider.registry import kv, leases
from outrider.registry.layout import HOSTS, PLACEMENT, HostDoc, MoveDoc, move_key
from outrider.registry.leases import LEASES, Lease, LeaseDoc, Member

if TYPE_CHECKING:
    from outrider.registry.client import Consul

pytest_plugins = ("integration.shim.shim_host",)

SPEC = Spec("m1", "Ledger", "state", End("Ledger-1", "local", "v1"), End("Ledger-2", "h2", "v1"), by="test", at=1.0)


def seen(consul: Consul, status: str) -> None:
    """What gossip says of h2."""
    check = {"Node": "h2", "CheckID": "serfHealth", "Name": "gossip", "Status": status}
    body = {"Node": "h2", "Address": "127.0.0.1", "Check": check}
    consul.put("/v1/catalog/register", msgspec.json.encode(body))


def lease(consul: Consul) -> Lease:
    return leases.decode_leases(consul.get(f"/v1/kv/{LEASES}Ledger"))[0]["Ledger"]


def held(fleet: Fleet) -> None:
    """As the driver leaves it when h2 did not come back to pass the lease back."""
    consul, before = fleet.host.consul.client, fleet.placed()
    journal = Journal(SPEC)
    for what, step in [("planned", ""), ("begun", "start"), ("begun", "copy"), ("begun", "hand over"),
                       ("begun", "verify"), ("rollback", ""), ("begun", "revive"), ("held", "")]:  # fmt: skip
        entry = next_entry(journal, what, 2.0, "local", step=step, said="h2 is away")  # type: ignore[arg-type]
        journal = journal.followed_by(entry)
    doc = edits.handing_over(edits.claimed(before, SPEC, "k"), SPEC, "Ledger-2", 1)
    _, index = kv.get_doc(consul, PLACEMENT + "Ledger", type(doc))
    changes = [kv.Change(PLACEMENT + "Ledger", edits.held(doc, "h2 is away"), index), spec_change(SPEC)]
    changes += [kv.Change(HOSTS + "h2", HostDoc(Host("h2")), 0), kv.Change(move_key("h2", "Ledger"), MoveDoc("k"), 0)]
    kv.put_docs(consul, [*changes, *(entry_change("m1", entry) for entry in journal.entries)])


def handed_over(fleet: Fleet) -> tuple[LeaseDoc, str]:
    """The lease is with the instance on h2; its document, and the session that holds it."""
    consul = fleet.host.consul.client
    members = (Member("Ledger-1", "local"), Member("Ledger-2", "h2"))
    doc = LeaseDoc("Ledger", 2, "Ledger-2", "h2", members=members, state="held")
    session = consul.create_session("h2", ttl_s=60.0, lock_delay_s=0.001)
    leases.acquire(consul, doc, 0, session)
    return doc, session


def test_what_it_accepted_is_given_up_and_the_old_one_goes_on_with_what_it_has(
    fleet: Fleet, call: Callable[..., Any]
) -> None:
    fleet.place(ledger("singleton"))
    consul = fleet.host.consul.client
    held(fleet)
    fleet.host.start()
    fleet.host.wait(lambda: fleet.host.registered().get("Ledger-1", ("",))[0] == "passing")

    def refused(why: str) -> None:
        with pytest.raises(MigrationRefused, match=why):
            fleet.desk.resolve("m1", "ann", "accept_loss", "burnt")

    seen(consul, "critical")
    refused("Ledger-1 has all that was accepted: .* --back` is enough")
    doc, session = handed_over(fleet)
    seen(consul, "passing")
    refused("h2 is not lost")
    seen(consul, "critical")
    refused("h2 may still hold the lease")
    leases.release(consul, doc, session)
    with pytest.raises(MigrationRefused, match="say why"):
        fleet.desk.resolve("m1", "ann", "accept_loss")
    assert lease(consul).doc == doc  # nothing but a person's word lets the old one go on
    fleet.desk.resolve("m1", "ann", "accept_loss", "burnt")
    report = fleet.end("m1")
    lost = "ann gave up what Ledger-2 on h2 accepted since 1970-01-01 00:00:02 UTC: burnt"
    assert (report.state, report.rows[-1].said) == ("rolled_back", f"h2 is away; {lost}")
    assert [row.what for row in report.rows[-4:]] == ["resolved", "accept loss", "take back", "rolled_back"]
    assert (fleet.instances(), fleet.placed().held, fleet.keys()) == ([("Ledger-1", "v1")], "", {})
    assert call("add", {"number": 1})["instance"] == "Ledger-1"
    assert lease(consul).doc.epoch > doc.epoch


def test_one_whose_version_is_not_published_any_more_is_not_kept(fleet: Fleet) -> None:
    fleet.place(ledger("singleton"))
    held(fleet)
    fleet.publish("v3", "v2")
    with pytest.raises(MigrationRefused, match="Ledger is published at version v3, not at v1 any more") as refused:
        fleet.desk.resolve("m1", "ann", "keep")
    assert "`outrider migrate resolve m1 --back` goes back to version v1" in str(refused.value)
    assert report_of(fleet.desk.get("m1"), 0.0).state == "held"
    fleet.publish("v1", "v3")
    fleet.desk.resolve("m1", "ann", "keep")
    assert report_of(fleet.desk.get("m1"), 0.0).state == "running"
