"""What may happen to hosts in the middle of a migration: its driver stands still, a leader dies, power is lost.

`make test` has no time for them; `make faults-migration` runs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from faults.moving import END_S, OBSERVER, SEED, Moving
from faults.runs import Run, line_of
from faults.suite import observed, well_for_good
from hosts.fleet import Fleet, until

STATE, REPLICATED = "Lone", "Echo"  # of the small fleet
FROZEN_S = 10.0
LONG = ("--approvals", "0", "--verify-s", "25", "--undecided", "accept", "--canary", "0")


def under_eyes(moving: Moving, act: Callable[[], None]) -> Run:
    run = observed(moving.fleet, SEED, ("migration",), act)
    print(line_of(run))
    print(moving.text())
    assert run.verdict.violations == []
    return run


def test_a_driver_that_stood_still_finds_that_another_has_gone_on(small: Fleet) -> None:
    well_for_good(small)
    moving = Moving(small, STATE)
    moving.operator = moving.target
    shim = "$(systemctl show -P MainPID outriderd)"

    def act() -> None:
        moving.ask("--verify-s", "2", "--undecided", "accept", "--approvals", "1")
        until(lambda: "must approve" in moving.report()["waits"] or moving.rows("copy"), END_S, moving.text)
        stopped = time.monotonic()
        # Who stands still for so long is killed by systemd otherwise, and is to wake up here.
        small.on(moving.driver, f"systemctl service-watchdogs no; kill -STOP {shim}")
        try:
            moving.say("approve")
            moving.begun("hand over")
            time.sleep(max(0.0, stopped + FROZEN_S - time.monotonic()))
        finally:
            small.on(moving.driver, f"kill -CONT {shim}; systemctl service-watchdogs yes")
        assert moving.ended()["state"] == "finalised"

    under_eyes(moving, act)
    by = {row["what"]: row["by"] for row in moving.report()["rows"]}
    assert by["start"] == moving.driver != by["hand over"]
    well_for_good(small)


def test_a_leader_of_consul_that_dies_in_the_hand_over_delays_it(small: Fleet) -> None:
    well_for_good(small)
    moving = Moving(small, STATE)

    def act() -> None:
        moving.ask("--verify-s", "2", "--undecided", "accept", "--approvals", "1")
        moving.begun("copy")
        moving.say("approve")
        moving.scene.shell(moving.scene.leader(), "systemctl kill --kill-who=main --signal=KILL consul")
        assert moving.ended()["state"] in ("finalised", "rolled_back")

    under_eyes(moving, act)
    well_for_good(small)


@pytest.mark.parametrize("agent", [STATE, REPLICATED])
def test_the_old_host_may_lose_its_power_once_the_new_one_works(small: Fleet, agent: str) -> None:
    well_for_good(small)
    moving = Moving(small, agent)
    if moving.source == OBSERVER:  # it is brought to where it may be hurt
        moving.ask(*LONG)
        assert moving.ended()["state"] == "finalised"
        moving = Moving(small, agent)

    def act() -> None:
        moving.ask(*LONG)
        moving.begun("verify")
        small.lab.machines()[moving.source].power_off()
        try:
            assert moving.ended()["state"] == "finalised"
        finally:
            small.lab.start(moving.source)

    under_eyes(moving, act)
    well_for_good(small)


def test_a_new_host_that_loses_its_power_with_the_state_holds_it_until_it_is_back(small: Fleet) -> None:
    well_for_good(small)
    moving = Moving(small, STATE)

    def act() -> None:
        moving.ask(*LONG)
        moving.begun("verify")
        time.sleep(1)  # something is accepted there
        small.lab.machines()[moving.target].power_off()
        try:
            found = moving.ended()
        finally:
            small.lab.start(moving.target)
        assert (found["state"], found["reason"].split(" has ")[1]) == (
            "held",
            f"accepted work that {moving.instance} lacks, and does not give it back",
        )
        until(lambda: small.passing(moving.target) > 0, END_S)
        moving.say("resolve", "--back")
        until(lambda: moving.report()["state"] == "rolled_back", END_S, moving.text)

    under_eyes(moving, act)
    well_for_good(small)


def test_a_new_host_of_a_replica_that_loses_its_power_gives_way_to_the_old_one(small: Fleet) -> None:
    well_for_good(small)
    moving = Moving(small, REPLICATED)

    def act() -> None:
        moving.ask(*LONG)
        moving.begun("verify")
        small.lab.machines()[moving.target].power_off()
        try:
            found = moving.ended()
        finally:
            small.lab.start(moving.target)
        assert found["state"] == "rolled_back"
        assert found["reason"] == f"verify: {moving.target} is lost"

    under_eyes(moving, act)
    well_for_good(small)
