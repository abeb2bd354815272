"""Each rule of a rollout, as a situation and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from outrider.fleet.placement import Slot
from outrider.fleet.spec import Agent, Mode
from outrider.migration.changes import Documents, Goal
from outrider.migration.situation import Done, Failed, Situation, Wait, Write
from outrider.migration.steps import next_step
from outrider.migration.store import Seen
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc

Sight = dict[tuple[str, str], Seen]


def doc(version: str, mode: Mode = "replicated") -> AgentDoc:
    return AgentDoc("a", "test", Agent(command=("run",), mode=mode), version)


def placed(*versions: str, host: str = "one") -> tuple[Placed, ...]:
    return tuple(Placed(f"a-{n}", host, version) for n, version in enumerate(versions, 1))


def docs(version: str, *instances: Placed, mode: Mode = "replicated") -> Documents:
    return Documents(doc(version, mode), PlacementDoc("a", instances, "fleet file"))


def goal(version: str, *hosts: str, mode: Mode = "replicated") -> Goal:
    return Goal(doc(version, mode), tuple(Slot(f"a-{n}", host) for n, host in enumerate(hosts, 1)))


def seen(*versions: str, host: str = "one", status: str = "passing", well_s: float = 9.0) -> Sight:
    return {
        (f"a-{n}", host): Seen(host, version, status, "exited: status 3", well_s)
        for n, version in enumerate(versions, 1)
    }


def step(
    wanted: Goal, before: Documents, now: Documents, sight: Mapping[tuple[str, str], Seen], waited_s: float = 0.0
) -> Write | Wait | Failed | Done:
    return next_step(Situation(wanted, before, now, sight, waited_s, limit_s=60.0))


NOTHING = Documents()
OLD = docs("v1", *placed("v1", "v1"))
TO_V2 = goal("v2", "one", "one")


def test_a_new_agent_is_written_whole() -> None:
    assert step(goal("v1", "one", "one"), NOTHING, NOTHING, {}) == Write(OLD)


def test_a_new_agent_is_awaited() -> None:
    assert step(goal("v1", "one", "one"), NOTHING, OLD, seen("v1")) == Wait(("a-2",))
    assert step(goal("v1", "one", "one"), NOTHING, OLD, seen("v1", "v1")) == Done()


def test_passing_for_a_moment_is_not_well() -> None:
    assert step(goal("v1", "one", "one"), NOTHING, OLD, seen("v1", "v1", well_s=0.2)) == Wait(("a-1", "a-2"))


def test_one_that_serves_but_lacks_a_need_is_well() -> None:
    assert step(goal("v1", "one", "one"), NOTHING, OLD, seen("v1", "v1", status="warning")) == Done()


def test_what_ends_again_and_again_fails_early_but_a_slow_start_is_awaited() -> None:
    wanted = goal("v1", "one", "one")
    ending = seen("v1", "v1", status="critical")
    assert step(wanted, NOTHING, OLD, ending, waited_s=9) == Wait(("a-1", "a-2"))
    assert step(wanted, NOTHING, OLD, ending, waited_s=11) == Failed("a-1", "one", "exited: status 3")
    slow = {key: replace(item, output="starting: not ready yet") for key, item in ending.items()}
    assert step(wanted, NOTHING, OLD, slow, waited_s=11) == Wait(("a-1", "a-2"))
    # What is known is of the version before: the new one has not been tried yet.
    assert step(wanted, NOTHING, OLD, seen("v0", "v0", status="critical"), waited_s=11) == Wait(("a-1", "a-2"))


def test_what_does_not_get_well_in_time_fails_with_its_output() -> None:
    found = step(goal("v1", "one", "one"), NOTHING, OLD, seen("v1", "v1", status="critical"), waited_s=61)
    assert found == Failed("a-1", "one", "exited: status 3")
    never = step(goal("v1", "one", "one"), NOTHING, OLD, {}, waited_s=61)
    assert isinstance(never, Failed)
    assert "does the shim of one run?" in never.why


def test_a_new_version_is_described_before_any_instance_moves() -> None:
    assert step(TO_V2, OLD, OLD, seen("v1", "v1")) == Write(docs("v2", *placed("v1", "v1")))


def test_then_one_instance_moves_at_a_time() -> None:
    described = docs("v2", *placed("v1", "v1"))
    first, second = docs("v2", *placed("v2", "v1")), docs("v2", *placed("v2", "v2"))
    assert step(TO_V2, OLD, described, seen("v1", "v1")) == Write(first)
    assert step(TO_V2, OLD, first, seen("v1", "v1")) == Wait(("a-1",))
    assert step(TO_V2, OLD, first, seen("v2", "v1")) == Write(second)
    assert step(TO_V2, OLD, second, seen("v2", "v2")) == Done()


def test_the_old_version_need_not_be_well() -> None:
    described = docs("v2", *placed("v1", "v1"))
    assert isinstance(step(TO_V2, OLD, described, seen("v1", "v1", status="critical")), Write)


def test_a_continued_rollout_first_looks_at_what_was_moved_before() -> None:
    half = docs("v2", *placed("v2", "v1"))
    assert step(TO_V2, half, half, seen("v2", "v1", status="critical")) == Wait(("a-1",))
    assert step(TO_V2, half, half, seen("v2", "v1")) == Write(docs("v2", *placed("v2", "v2")))


def test_a_stopped_instance_gets_the_version_and_no_wait() -> None:
    stopped = [replace(one, state="stopped") for one in placed("v1", "v1")]
    now = docs("v1", *stopped)
    wanted = docs("v2", *[replace(one, version="v2") for one in stopped])
    assert step(TO_V2, now, now, {}) == Write(wanted)
    assert step(TO_V2, now, wanted, {}) == Done()


def test_a_replica_moves_in_one_write() -> None:
    before, after = docs("v1", *placed("v1")), docs("v1", *placed("v1", host="two"))
    wanted = goal("v1", "two")
    assert step(wanted, before, before, seen("v1")) == Write(after)
    assert step(wanted, before, after, seen("v1")) == Wait(("a-1",))
    assert step(wanted, before, after, seen("v1", host="two")) == Done()


def test_a_singleton_ends_on_the_old_host_before_it_starts_on_the_new_one() -> None:
    before = docs("v1", *placed("v1"), mode="singleton")
    nowhere = docs("v1", mode="singleton")
    there = docs("v1", *placed("v1", host="two"), mode="singleton")
    wanted = goal("v1", "two", mode="singleton")
    assert step(wanted, before, before, seen("v1")) == Write(nowhere)
    assert step(wanted, before, nowhere, seen("v1", status="critical")) == Wait(("a-1",))
    assert step(wanted, before, nowhere, {}) == Write(there)
    late = step(wanted, before, nowhere, seen("v1", status="critical"), waited_s=61)
    assert late == Failed("a-1", "two", "its process on the old host did not end in time")


def test_surplus_is_drained_and_then_dropped() -> None:
    one, two = placed("v1", "v1")
    halted = docs("v1", one, replace(two, state="stopped"))
    kept = docs("v1", one)
    wanted = goal("v1", "one")
    assert step(wanted, OLD, OLD, seen("v1", "v1")) == Write(halted)
    assert step(wanted, OLD, halted, seen("v1", "v1")) == Wait(("a-2",))
    assert step(wanted, OLD, halted, seen("v1", "v1", status="critical")) == Write(kept)
    assert step(wanted, OLD, kept, seen("v1", "v1", status="critical")) == Wait(("a-2",))
    assert step(wanted, OLD, kept, seen("v1")) == Done()


def test_an_agent_that_goes_is_stopped_drained_and_deleted() -> None:
    halted = docs("v1", *[replace(one, state="stopped") for one in placed("v1", "v1")])
    assert step(Goal(), OLD, OLD, seen("v1", "v1")) == Write(halted)
    assert step(Goal(), OLD, halted, seen("v1", "v1")) == Wait(("a-1", "a-2"))
    assert step(Goal(), OLD, halted, seen("v1", "v1", status="critical")) == Write(NOTHING)
    assert step(Goal(), OLD, NOTHING, seen("v1")) == Wait(("a-1",))
    assert step(Goal(), OLD, NOTHING, {}) == Done()


def test_a_dead_host_holds_up_no_removal() -> None:
    halted = docs("v1", *[replace(one, state="stopped") for one in placed("v1", "v1")])
    assert step(Goal(), OLD, halted, seen("v1", "v1"), waited_s=61) == Write(NOTHING)
    assert step(Goal(), OLD, NOTHING, seen("v1"), waited_s=61) == Done(("a-1",))
