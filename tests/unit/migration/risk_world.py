"""A small fleet on two hosts, and a day on which everything about it is known and well."""

from __future__ import annotations

from pathlib import Path

from outrider.fleet.load import load_fleet
from outrider.fleet.placement import place
from outrider.fleet.spec import Host
from outrider.host.reports import UptimeRow
from outrider.migration.risk.assess import Risk
from outrider.migration.risk.observed import Observations, Outcome, Proof, Published, Record, Traffic
from outrider.migration.risk.score import Contribution
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc

NOW = 1_800_000_000.0
DAY = 86_400.0
FLEET = """
fleet: risky
defaults: {command: [sleep, inf], ports: {call: auto}, resources: {cpu: 1, memory_mib: 1024}}
groups:
  all:
    agents:
      Store: {mode: singleton, state: true, tier: core}
      Web: {count: 3, tier: tier-3, needs: [Store]}
      Pinned: {hosts: [one], tier: tier-3}
"""
HOSTS = (Host("one", cpu=16, memory_mib=16384), Host("two", cpu=16, memory_mib=16384))
ALIKE = {"kernel": "6.1", "python": "3.11", "gpu": "none", "driver": "none"}


def published(folder: Path, hosts: tuple[Host, ...] = HOSTS) -> Published:
    """The documents of FLEET, placed."""
    (folder / "fleet.yml").write_text(FLEET)
    fleet = load_fleet(folder / "fleet.yml", hosts)
    placements = {
        name: PlacementDoc(name, tuple(Placed(slot.instance, slot.host, "v1", slot.entry) for slot in slots))
        for name, slots in place(fleet, hosts, {}).items()
    }
    agents = {name: AgentDoc(name, "risky", agent, "v1") for name, agent in fleet.agents.items()}
    return Published(agents, placements, {host.name: HostDoc(host) for host in hosts})


def calm() -> Observations:
    """Everything is known, and nothing speaks against a migration."""
    names = ("Store", "Web", "Pinned")
    done = tuple(Outcome(name, "two", False, NOW - DAY, 0.5) for name in names for _ in range(11))
    return Observations(
        NOW,
        health=dict.fromkeys(names, 3),
        leases={"Store": "Store-1"},
        environments={"one": ALIKE, "two": ALIKE},
        traffic={name: Traffic(0.5, 1e5, 0, "test", peak_per_s=10.0) for name in names},
        record=Record(NOW - 100 * DAY),
        uptime={name: UptimeRow(name, {}, 30 * DAY, 0.0) for name in names},
        outcomes=done,
        backups={name: {"state": Proof("b1", "two", NOW - DAY)} for name in names},
    )


def factor(risk: Risk, key: str) -> Contribution:
    """What the factor of this key adds to a risk."""
    [found] = [each for each in risk.contributions if each.key == key]
    return found
