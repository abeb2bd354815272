"""What a risk is assessed from, read from a real Consul; what is not there, or not readable, says so."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import msgspec
import pytest
import yaml
from msgspec.structs import replace

from integration.conftest import ConsulServer
from outrider.cli.main import main
from outrider.errors import OutriderError, ShimUnreachable
from outrider.fleet.spec import Agent, Host
from outrider.host.reports import CallRow, CallsReport, EventRow, EventsReport, UptimeReport
from outrider.migration.risk.gather import BACKUPS, MIGRATIONS, observe, read_published
from outrider.migration.risk.observed import Outcome, Rehearsal
from outrider.migration.risk.survey import Asked, of_running
from outrider.migration.staged.records import End, Journal, Spec, next_entry
from outrider.registry import leases
from outrider.registry.client import Consul, connect
from outrider.registry.kv import Change, put_docs
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, SHIM, AgentDoc, HostDoc, Placed, PlacementDoc
from outrider.registry.services import Service, register

T = TypeVar("T")
ROLE = Path(__file__).parents[2] / "roles/consul"
NOW = time.time()
CALLS = CallRow("x", "Store", 100, 2.0, 1, {"ok": 99}, 0, 0, None, None, {})


class Shim:
    """Answers as a shim that saw one death."""

    def get(self, path: str, kind: type[T]) -> T:
        answers: dict[str, Any] = {
            "/v1/calls": CallsReport((CALLS,)),
            "/v1/events?limit=10000": EventsReport((
                EventRow(NOW - 9e6, "observing", "", "", "local", "", 0, 0.0),
                EventRow(NOW - 86_400, "critical", "Store", "Store-1", "local", "died", 0, 1.0),
            )),
            "/v1/uptime": UptimeReport({}),
        }  # fmt: skip
        return answers[path]


class NoShim:
    """Nobody answers."""

    def get(self, path: str, kind: type[T]) -> T:
        raise ShimUnreachable("no shim answers here")


def publish(consul: Consul) -> None:
    """A singleton that keeps state and passes, on the host that this Consul is."""
    agent = Agent(command=("sleep", "9"), mode="singleton", state=True, ports={"call": "auto"})
    docs = {
        FLEET + "Store": AgentDoc("Store", "test", agent, "v1"),
        PLACEMENT + "Store": PlacementDoc("Store", (Placed("Store-1", "local", "v1"),)),
        HOSTS + "local": HostDoc(Host("local")),
    }
    put_docs(consul, [Change(key, doc, 0) for key, doc in docs.items()])
    register(consul, Service("Store-1", "Store", "127.0.0.1", 7000, ("outrider",), {}, "outrider:Store-1", "passing"))
    meta = {"fleet": "test", "host": "local", "kernel": "6.1"}
    register(consul, Service(SHIM, SHIM, "127.0.0.1", 1, (), meta, f"outrider:{SHIM}", "passing"))


def journals_of(*outcomes: Outcome) -> dict[str, Any]:
    """What migrations that ended so left in Consul."""
    records: dict[str, Any] = {}
    for number, outcome in enumerate(outcomes):
        spec = Spec(str(number), outcome.agent, "singleton", End("Store-1", "one", "v1"), End("Store-2", "two", "v1"))
        journal = Journal(spec)
        steps = [("rollback", outcome.ended - (outcome.way_back_s or 0), None)] if outcome.failed else []
        for what, at, how in (*steps, ("ended", outcome.ended, "rolled_back" if outcome.failed else "finalised")):
            entry = next_entry(journal, what, at, "one", outcome=how)
            records[f"{MIGRATIONS}{number}/journal/{entry.seq:05}"] = entry
            journal = journal.followed_by(entry)
        records[f"{MIGRATIONS}{number}/spec"] = spec
    return records


def test_everything_that_consul_and_the_shim_know_is_read(consul: ConsulServer) -> None:
    client = consul.client
    publish(client)
    session = leases.create_session(client, "local")
    leases.acquire(client, leases.LeaseDoc("Store", 7, "Store-1", "local", state="held"), 0, session)
    records = journals_of(Outcome("Store", "two", True, NOW - 5.0, 1.5), Outcome("Store", "two", False, NOW - 50.0))
    proof = {"state": {"id": "b1", "host": "two", "verified_at": int(NOW), "bytes": 5, "more": "later"}}
    spec = Spec("r", "Store", "state", End("Store-1", "one", "v1"), End("Store-2", "two", "v1"), rehearse=True)
    rehearsal = next_entry(Journal(spec), "ended", NOW - 9.0, "one", outcome="rehearsed")
    records |= {f"{MIGRATIONS}r/spec": spec, f"{MIGRATIONS}r/journal/00000": rehearsal}
    records |= {f"{BACKUPS}Store": proof, f"{BACKUPS}index": [1]}
    put_docs(client, [Change(key, doc, 0) for key, doc in records.items()])

    seen = observe(client, Shim(), read_published(client), NOW)
    assert seen.silent == {}
    assert (seen.health, seen.leases) == ({"Store": 1}, {"Store": "Store-1"})
    assert seen.environments
    assert seen.environments["local"]["kernel"] == "6.1"
    oldest_first = (Outcome("Store", "two", False, NOW - 50.0), Outcome("Store", "two", True, NOW - 5.0, 1.5))
    assert seen.outcomes == oldest_first
    assert seen.rehearsals == (Rehearsal("r", spec.plan, NOW - 9.0),)
    assert seen.backups
    assert seen.backups["Store"]["state"].id == "b1"
    assert seen.record
    assert seen.record.since == NOW - 9e6
    assert seen.traffic
    assert (seen.traffic["Store"].per_s, seen.traffic["Store"].partial) == (2.0, "")

    leases.release(client, leases.LeaseDoc("Store", 7, "Store-1", "local"), session)
    assert observe(client, Shim(), read_published(client), NOW).leases == {"Store": ""}


def test_what_is_not_there_is_nothing_and_what_is_damaged_is_unknown(consul: ConsulServer) -> None:
    client = consul.client
    publish(client)
    empty = observe(client, NoShim(), read_published(client), NOW)
    assert (empty.outcomes, empty.backups, empty.leases) == ((), {}, {})
    assert empty.silent == dict.fromkeys(("traffic", "record", "uptime"), "no shim answers here")
    put_docs(client, [Change(MIGRATIONS + "1/spec", {"agent": "Store"}, 0), Change(BACKUPS + "Store", [1], 0)])
    damaged = observe(client, NoShim(), read_published(client), NOW)
    assert (damaged.outcomes, damaged.backups) == (None, None)
    assert damaged.silent["outcomes"].startswith("journals cannot be read: outrider/migrations/1/spec")
    [risk] = of_running(client, NoShim(), Asked("Store"))
    assert {"L3", "L4", "I6", "A1"} <= {each.key for each in risk.not_known}


def test_the_token_of_a_host_reads_all_of_it_and_an_older_one_says_what_it_may_not(
    consul_binary: Path, tmp_path: Path
) -> None:
    """With ACLs, as the role makes them: a list of what may not be read looks as if there were nothing."""
    master = str(uuid.uuid4())
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": master}}
    server = ConsulServer(consul_binary, tmp_path / "guarded", {"acl": acl})
    server.address = replace(server.address, token=master)
    server.client = connect(server.address)
    try:
        server.start()
        publish(server.client)
        prefixes = yaml.safe_load((ROLE / "defaults/main.yml").read_text())["consul_read_prefixes"]
        may = observe(host(server, prefixes), Shim(), read_published(server.client), NOW)
        assert (may.silent, may.outcomes, may.backups, may.health) == ({}, (), {}, {"Store": 1})
        older = host(server, [prefix for prefix in prefixes if prefix not in (MIGRATIONS, BACKUPS)])
        seen = observe(older, Shim(), read_published(server.client), NOW)
        assert (seen.outcomes, seen.backups) == (None, None)
        assert seen.silent.keys() == {"outcomes", "backups"}
    finally:
        server.stop()


def host(guarded: ConsulServer, prefixes: list[str]) -> Consul:
    """A client with the token of a host, as site.yml makes it."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ROLE / "templates"))
    rules = environment.get_template("host_policy.hcl.j2").render(
        consul_node_name="local", consul_read_prefixes=prefixes, consul_write_prefixes=[],
        consul_own_prefixes=[], consul_services=["outrider-shim"], consul_write_keys=[],
    )  # fmt: skip
    name = f"host-{len(prefixes)}"
    guarded.client.put("/v1/acl/policy", msgspec.json.encode({"Name": name, "Rules": rules}))
    made = guarded.client.put("/v1/acl/token", msgspec.json.encode({"Policies": [{"Name": name}]}))
    token = msgspec.json.decode(made)["SecretID"]
    return connect(replace(guarded.address, token=token))


def test_the_command_asks_consul_also_where_no_shim_runs(
    consul: ConsulServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.http_url)
    runtime = ["--runtime", str(tmp_path / "run")]
    with pytest.raises(OutriderError, match="holds no fleet"):
        read_published(consul.client)
    assert main(["risk", *runtime]) == 1
    assert "holds no fleet" in capsys.readouterr().err
    publish(consul.client)
    assert main(["risk", *runtime, "--json"]) == 0
    [risk] = json.loads(capsys.readouterr().out)
    assert risk["stop"] == "nobody holds its lease: who writes its state is not known"
    assert main(["risk", "Store", *runtime]) == 1
    assert "no shim answers" in capsys.readouterr().out
    consul.stop()
    assert main(["risk", *runtime]) == 3
