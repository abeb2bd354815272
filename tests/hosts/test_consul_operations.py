"""Consul's daemons restarted and broken, under load, on real hosts."""

from __future__ import annotations

import json

import pytest

from hosts.fleet import Fleet, until
from hosts.load import load

SERVERS = ["lab1", "lab2", "lab3"]


def started(fleet: Fleet, hosts: list[str]) -> dict[str, str]:
    """When the daemon of each host was started."""
    show = "systemctl show consul --property=ExecMainStartTimestampMonotonic --value"
    return {host: fleet.on(host, show).strip() for host in hosts}


def voters(fleet: Fleet) -> set[str]:
    """Servers that vote, as lab4's agent is told."""
    status, found = fleet.consul("lab4", "operator/raft/configuration")
    return {server["Node"] for server in found["Servers"] if server["Voter"]} if status == 200 else set()


def healthy(fleet: Fleet) -> bool:
    status, found = fleet.consul("lab4", "operator/autopilot/health")
    return status == 200 and found["Healthy"] and voters(fleet) == set(SERVERS)


def leader(fleet: Fleet) -> str:
    """Name of the host that leads."""
    _, found = fleet.consul("lab4", "operator/raft/configuration")
    return next(str(server["Node"]) for server in found["Servers"] if server["Leader"])


def make_restarts_due(fleet: Fleet) -> None:
    """As a changed setting does: no daemon is known to run with what is there."""
    for host in fleet.lab.machines():
        fleet.on(host, "rm -f /run/consul/applied")


@pytest.fixture(autouse=True)
def well(fleet: Fleet) -> None:
    """Every test starts with a cluster that is well."""
    until(lambda: healthy(fleet), 60, fleet.what_is_wrong)


def test_a_changed_setting_restarts_one_server_at_a_time_leader_last(fleet: Fleet) -> None:
    before, led = started(fleet, [*SERVERS, "lab4"]), leader(fleet)
    with load(fleet, ["lab1", "lab2", "lab3", "lab4"], "lab4") as measured:
        played = fleet.play("site.yml", "--tags", "always,consul", consul_log_level="DEBUG")
    assert played.status == 0, played.output
    after = started(fleet, [*SERVERS, "lab4"])
    assert all(before[host] != after[host] for host in before)
    assert (
        max(
            SERVERS,
            key=lambda host: int(fleet.on(host, "cat /proc/$(pidof consul)/stat").rpartition(")")[2].split()[19]),
        )
        == led
    )
    assert healthy(fleet)
    assert measured[0].failed == 0, measured
    # What keeps a second operator out: who held it last is told. tests/integration/roles has them both at once.
    status, value = fleet.consul("lab4", "kv/outrider/locks/consul-restart?raw")
    assert (status, "operator" in json.dumps(value)) == (200, True)
    print(f"rolling restart: {played.seconds:.0f} s, {measured[0]}")


def test_a_run_that_is_killed_in_the_middle_is_made_good_by_the_next(fleet: Fleet) -> None:
    make_restarts_due(fleet)
    before = started(fleet, SERVERS)
    run = fleet.start_play("site.yml", "--tags", "always,consul")
    until(lambda: started(fleet, SERVERS) != before, 90)
    fleet.kill_play(run)
    again = fleet.play("site.yml", "--tags", "always,consul")
    assert again.status == 0, again.output
    assert all(before[host] != now for host, now in started(fleet, SERVERS).items())
    assert healthy(fleet)
    third = fleet.play("site.yml", "--tags", "always,consul")
    assert (third.status, third.changed) == (0, 0), third.output


def test_what_does_not_come_up_is_taken_back_and_the_others_are_spared(fleet: Fleet) -> None:
    """The daemon finds the setting valid and ends all the same: nobody has the address."""
    before = started(fleet, SERVERS)
    impossible = {"addresses": {"http": "192.0.2.1"}}
    played = fleet.play(
        "site.yml", "--tags", "always,consul", consul_extra_config=impossible, consul_restart_timeout_s=8
    )
    assert played.status != 0
    assert "The previous configuration is running again (/etc/consul.d/consul.json)" in " ".join(
        played.output.split()
    ), played.output
    after = started(fleet, SERVERS)
    assert sum(before[host] != after[host] for host in SERVERS) == 1, "only the first was tried"
    until(lambda: healthy(fleet), 60, fleet.what_is_wrong)
    # The hosts that were spared have the impossible setting on their disks, for the next start.
    mended = fleet.play("site.yml", "--tags", "always,consul")
    assert mended.status == 0, mended.output
