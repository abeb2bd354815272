"""Facts of the fleet file and the source become measures, each with what it was read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider.fleet.load import load_fleet
from outrider.fleet.spec import Agent, Fleet
from outrider.migration.risk.facts import PLUMBING_KB, declared, dependants, from_source
from outrider.migration.risk.score import Measure
from outrider.migration.risk.source import SourceFacts

FLEET = """
fleet: risky
defaults: {command: [sleep, inf], ports: {main: auto}}
groups:
  all:
    agents:
      Store: {mode: singleton, state: true, tier: core_services, needs: [Web]}
      Cache: {count: 2, state: true, tier: tier-2, needs: [Store]}
      Web: {count: 3, tier: speech, needs: [Cache, Store]}
      Alone: {}
"""
NO_STATE = Measure(0, "the fleet file says that it keeps no state")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    (tmp_path / "fleet.yml").write_text(FLEET)
    return load_fleet(tmp_path / "fleet.yml")


def test_dependants_are_found_through_others_and_around_cycles(fleet: Fleet) -> None:
    assert dependants(fleet, "Store") == ("Cache", "Web")
    assert dependants(fleet, "Web") == ("Store", "Cache")
    assert dependants(fleet, "Alone") == ()


@pytest.mark.parametrize(
    ("name", "state", "needed_by", "tier"),
    [("Store", 3, 2, 0), ("Cache", 2, 2, 2), ("Web", 0, 2, None), ("Alone", 0, 0, None)],
)
def test_what_the_fleet_file_says(fleet: Fleet, name: str, state: int, needed_by: int, tier: int | None) -> None:
    found = declared(fleet, name)
    assert [found[key].value for key in ("I1", "I2", "I3")] == [state, needed_by, tier]
    assert all(each.evidence for each in found.values())


def test_who_needs_it_is_named(fleet: Fleet) -> None:
    assert declared(fleet, "Store")["I2"].evidence == "needed, directly or not, by Cache, Web"
    assert declared(fleet, "Alone")["I3"].evidence == "the fleet file names no tier"


@pytest.mark.parametrize(
    ("tier", "value"),
    [("tier-2", 2), ("T1", 1), ("tier3", 3), ("0", 0), ("core_services", 0), ("pc2_services", None), ("tier", None)],
)
def test_a_tier_is_the_number_that_names_it_not_one_in_a_hosts_name(tier: str, value: int | None) -> None:
    assert declared(Fleet("x", {"A": Agent(tier=tier)}), "A")["I3"].value == value


def test_what_an_agent_does_by_itself_weighs_as_code() -> None:
    plain = from_source(SourceFacts(files=1, size=10_000, lines=300), NO_STATE)
    assert plain["L5"] == Measure(10, "1 file, 300 lines, 10 KB")
    own = from_source(SourceFacts(1, 10_000, 300, sockets=("zmq (a.py:1)",), health=("ping (a.py:9)",)), NO_STATE)
    assert own["L5"].value == 10 + 2 * PLUMBING_KB
    assert own["L5"].evidence.endswith("by itself: sockets zmq (a.py:1), health ping (a.py:9)")


def test_a_file_that_cannot_be_read_leaves_the_size_unknown() -> None:
    found = from_source(SourceFacts(2, 10, 1, unread=("b.py: SyntaxError",)), NO_STATE)["L5"]
    assert found == Measure(None, "cannot be read: b.py: SyntaxError")


def test_a_database_is_state_that_the_fleet_file_forgot() -> None:
    facts = SourceFacts(1, 10, 1, databases=("sqlite3 (a.py:2)",))
    found = from_source(facts, NO_STATE)["I1"]
    assert found.value == 3
    assert found.evidence == "it uses sqlite3 (a.py:2), though the fleet file says that it keeps no state"
    worse = Measure(4, "said so")
    assert from_source(facts, worse)["I1"] is worse
