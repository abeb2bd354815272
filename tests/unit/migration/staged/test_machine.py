"""The next action, by where a migration is and what is true. The whole of it is tried in test_protocol."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from outrider.fleet.spec import Agent, Host, Resources
from outrider.migration.staged.edits import claimed, handing_over, stopped, weighted
from outrider.migration.staged.machine import next_action
from outrider.migration.staged.plan import Fleet, refusals
from outrider.migration.staged.records import End as Place
from outrider.migration.staged.records import Entry, Journal, Policy, Spec, Strategy, What, next_entry
from outrider.migration.staged.sight import Action, Begin, Copied, Copy, Counts, End, GoBack, Hold, Sight, Wait
from outrider.migration.staged.steps import FORWARD
from outrider.migration.staged.story import Story, story_of
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc
from outrider.registry.leases import LeaseDoc, Member

DOC = PlacementDoc("A", (Placed("A-1", "h1", "v1"),))
GOOD, BAD = Counts(5_000, 0, (5_000,)), Counts(100, 90, (100,))


def spec(strategy: Strategy = "singleton", **policy: Any) -> Spec:
    return Spec("m", "A", strategy, Place("A-1", "h1", "v1"), Place("A-2", "h2", "v1"), Policy(**policy))


def sight(of: Spec, **more: Any) -> Sight:
    """All is well, with the target claimed and the source holding the lease."""
    base: dict[str, Any] = {
        "placement": claimed(DOC, of, "k"),
        "agent": AgentDoc("A", "f", Agent(), "v1"),
        "lease": LeaseDoc("A", 1, "A-1", "h1", state="held"),
        "locked": True,
        "passing": {"A-1": 10.0, "A-2": 10.0},
        "known_holder": frozenset({"A-1", "A-2"}),
    }
    return Sight(**(base | more))


def held_by(instance: str) -> dict[str, Any]:
    return {"lease": LeaseDoc("A", 2, instance, "h", state="held")}


def act(of: Spec, story: Story, seen: Sight) -> Action:
    return next_action(of, story, seen, 0.0)


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        ("replicated", ["start", "canary", "shift", "verify"]),
        ("singleton", ["start", "hand over", "verify"]),
        ("state", ["start", "copy", "hand over", "verify"]),
        ("cold", ["start", "close", "open", "verify"]),
    ],
)
def test_all_goes_forward_step_by_step_when_all_is_well(strategy: Strategy, steps: list[str]) -> None:
    of = spec(strategy, undecided="accept")
    ended = {"A-1": "stopped: by request"}
    seen = {"copied": Copied(0, 0), "counts": {"A-1": GOOD, "A-2": GOOD}, "waited_s": 1e6, "trouble": ended}
    story, found = Story(), []
    while len(found) < 10:
        holder = "A-2" if story.step in ("hand over", "open", "verify") else ("A-1" if story.step != "close" else "")
        lease = (
            held_by(holder) if holder else {"lease": LeaseDoc("A", 1, "A-1", "h1", state="released"), "locked": False}
        )
        action = act(of, story, sight(of, **seen, **lease))
        if isinstance(action, End):
            break
        assert isinstance(action, Begin)
        found.append(action.step)
        story = Story(step=action.step, evidence={**story.evidence, action.step: action.evidence})
    assert found == steps
    assert action.outcome == "finalised"


@pytest.mark.parametrize(
    ("strategy", "steps"), [("replicated", ["start"]), ("singleton", ["start"]), ("state", ["start", "copy"])]
)
def test_a_rehearsal_ends_before_the_cutover_asks_nobody_and_leaves_the_old_one_as_it_was(
    strategy: Strategy, steps: list[str]
) -> None:
    of = replace(spec(strategy, approvals=2), rehearse=True)
    others = PlacementDoc("A", (*DOC.instances, Placed("A-3", "h3", "v1")))  # a canary would have something beside it
    story, placement, found = Story(), others, []
    while len(found) < 10:
        action = act(of, story, sight(of, placement=placement, copied=Copied(0, 0)))
        if isinstance(action, End):
            break
        assert isinstance(action, Begin)
        placement = action.doc or placement
        assert [placed for placed in placement.instances if placed.instance != "A-2"] == list(others.instances)
        assert placement.handover is None
        found.append(action.step)
        story = Story(step=action.step, evidence={**story.evidence, action.step: action.evidence})
    assert found == steps
    assert action.outcome == "rehearsed"
    assert action.said.startswith("A-2 was ready to take over")
    assert action.doc
    assert (action.doc.instances, action.doc.migration, action.doc.state_key_hash) == (others.instances, "", "")


def test_a_rehearsal_that_does_not_work_is_one_that_went_back() -> None:
    of = replace(spec(), rehearse=True)
    late = act(of, Story(step="start"), sight(of, passing={"A-1": 9.0}, trouble={"A-2": "no port"}, waited_s=1e6))
    assert isinstance(late, GoBack)
    over = act(of, Story(direction="back", reason="why"), sight(of))
    assert isinstance(over, End)
    assert over.outcome == "rolled_back"
    needed = act(of, Story(step="start"), sight(of, **held_by("A-2")))
    assert needed == GoBack("A-2 had to take the lease of A-1 while it was rehearsed")
    assert act(of, Story(step="start", paused="me"), sight(of)) == Wait("paused by me", person=True)


def test_a_step_that_takes_too_long_is_undone_and_says_what_it_waited_for() -> None:
    of = spec()
    late = act(of, Story(step="start"), sight(of, passing={"A-1": 9.0}, trouble={"A-2": "no port"}, waited_s=1e6))
    assert isinstance(late, GoBack)
    assert "A-2: no port" in late.why


def test_one_that_ends_again_and_again_is_not_waited_for_to_the_end() -> None:
    of, crashing = spec(), {"passing": {"A-1": 9.0}, "trouble": {"A-2": "exited: exit status 1"}}
    assert isinstance(act(of, Story(step="start"), sight(of, waited_s=9.0, **crashing)), Wait)
    assert act(of, Story(step="start"), sight(of, waited_s=11.0, **crashing)) == GoBack(
        "start: A-2 exited: exit status 1"
    )


@pytest.mark.parametrize("step", ["start", "hand over", "verify"])
def test_a_lost_target_is_not_waited_for(step: str) -> None:
    of = spec()
    found = act(of, Story(step=step), sight(of, lost=frozenset({"h2"}), passing={"A-1": 9.0}))
    assert found == GoBack(f"{step}: h2 is lost")


def test_people_are_asked_before_the_cutover_and_not_before_what_is_undone_by_itself() -> None:
    of = spec(approvals=2)
    asks = act(of, Story(step="start", approved_by=("a",)), sight(of))
    assert asks == Begin("approval")
    waits = act(of, Story(step="approval", approved_by=("a",)), sight(of))
    assert isinstance(waits, Wait)
    assert waits.person
    assert waits.why.startswith("1 more must approve")
    agreed = act(of, Story(step="approval", approved_by=("a", "b")), sight(of))
    assert isinstance(agreed, Begin)
    assert (agreed.step, agreed.said) == ("hand over", "approved by a, b")
    lost = sight(of, lost=frozenset({"h1"}))
    assert act(of, Story(step="approval"), lost) == GoBack("approval: h1 is lost")
    state = act(spec("state", approvals=1), Story(step="approval", approved_by=("a",)), sight(of))
    assert isinstance(state, Begin)
    assert state.step == "copy"  # what was copied long ago is little by now
    paused = act(of, Story(step="start", paused="me", approved_by=("a", "b")), sight(of))
    assert paused == Wait("paused by me", person=True)


@pytest.mark.parametrize(
    ("undecided", "what"), [("accept", End), ("rollback", GoBack), ("hold", Wait)], ids=["accept", "rollback", "hold"]
)
def test_what_is_undecided_follows_the_policy(undecided: Any, what: type) -> None:
    of = spec(undecided=undecided)
    seen = sight(of, counts={"A-2": Counts(3, 0, (3,))}, waited_s=1e6, **held_by("A-2"))
    assert isinstance(act(of, Story(step="verify"), seen), what)
    assert isinstance(act(of, Story(step="verify", verdict_approved=True), seen), End)


def test_worse_calls_lead_back_at_once() -> None:
    of = spec()
    found = act(of, Story(step="verify"), sight(of, counts={"A-2": BAD}, **held_by("A-2")))
    assert isinstance(found, GoBack)
    assert found.evidence["verdict"] == "rollback"


def test_too_much_gpu_memory_leads_back_and_where_it_is_not_measured_the_verdict_says_so() -> None:
    of, gpu = spec(), AgentDoc("A", "f", Agent(resources=Resources(vram_mib=100)), "v1")
    seen: dict[str, Any] = {"agent": gpu, "counts": {"A-2": GOOD}, **held_by("A-2")}
    over = act(of, Story(step="verify"), sight(of, vram=(20, 20), **seen))
    assert isinstance(over, GoBack)
    assert "vram 20/20 bad" in over.why
    assert [signal["name"] for signal in over.evidence["signals"]] == ["errors", "vram"]
    blind = act(of, Story(step="verify"), sight(of, **(seen | {"counts": {"A-2": BAD}})))
    assert isinstance(blind, GoBack)
    assert blind.evidence["vram"].startswith("not measured")
    plain = act(of, Story(step="verify"), sight(of, counts={"A-2": BAD}, **held_by("A-2")))
    assert isinstance(plain, GoBack)
    assert "vram" not in plain.evidence


def test_what_waited_for_the_cutover_is_not_held_against_the_new_one_but_a_replica_had_nobody_waiting() -> None:
    baseline = {"start": {"baseline": {"calls": 1000, "failed": 0, "buckets": (1000, 0)}}}
    slow = Counts(60, 0, (20, 40))
    for strategy, what in (("singleton", Wait), ("replicated", GoBack)):
        of = spec(strategy=strategy)
        seen = sight(of, counts={"A-2": slow}, at_begin=Counts(), waited_for=None, **held_by("A-2"))
        assert isinstance(act(of, Story(step="verify", evidence=baseline), seen), what)


def test_a_lease_that_was_passed_back_is_left_to_its_heir_for_a_moment() -> None:
    of = spec(strategy="state")
    lease = LeaseDoc("A", 2, "A-2", "h2", state="released", heir=Member("A-1", "h1"))
    story = Story(step="hand back", direction="back", reason="test", evidence={"hand over": {}})
    assert isinstance(act(of, story, sight(of, lease=lease, locked=False, waited_s=0.1)), Wait)
    late = act(of, story, sight(of, lease=lease, locked=False, waited_s=2.0))
    assert isinstance(late, Begin)
    assert late.step == "take back"


def test_a_migration_follows_others_or_is_cancelled_with_them() -> None:
    of = spec()
    assert act(of, Story(), sight(of, others={"x": None})) == Wait("follows x")
    assert act(of, Story(), sight(of, others={"x": "rolled_back"})) == End(
        "cancelled", "x, which it was to follow, was not finalised"
    )
    assert isinstance(act(of, Story(), sight(of, others={"x": "finalised"})), Begin)
    assert isinstance(act(of, Story(), sight(of, others={"x": "rehearsed"})), Begin)
    assert act(of, Story(), sight(of, refused=("no room",))) == Wait("no room")
    assert act(of, Story(), sight(of, refused=("no room",), waited_s=11.0)) == End("cancelled", "no room")


def test_state_is_copied_ahead_until_little_is_left() -> None:
    of = spec("state")
    assert isinstance(act(of, Story(step="copy"), sight(of)), Copy)
    assert isinstance(act(of, Story(step="copy"), sight(of, copied=Copied(10**9, 10**9))), Copy)
    assert isinstance(act(of, Story(step="copy"), sight(of, copied=Copied(10, 10**9))), Begin)
    assert isinstance(act(of, Story(step="copy"), sight(of, copy_error="full")), Copy)
    assert isinstance(act(of, Story(step="copy"), sight(of, copy_error="full", waited_s=11.0)), GoBack)


def test_a_replica_goes_back_by_its_weights_first() -> None:
    of = spec("replicated")
    back = Story(direction="back", reason="why", evidence={"shift": {}})
    shifted = sight(of, placement=weighted(claimed(DOC, of), of, 1.0))
    first = act(of, back, shifted)
    assert isinstance(first, Begin)
    assert first.doc == weighted(claimed(DOC, of), of, 0.0)
    last = act(of, back, sight(of, placement=first.doc))
    assert isinstance(last, End)
    assert (last.outcome, [p.instance for p in last.doc.instances if last.doc]) == ("rolled_back", ["A-1"])


def test_nobody_goes_back_to_what_is_not_well() -> None:
    of = spec()
    back = Story(direction="back", reason="why")
    seen = {"passing": {"A-2": 9.0}, **held_by("A-2")}
    assert isinstance(act(of, back, sight(of, **seen)), Wait)
    held = act(of, back, sight(of, waited_s=1e6, **seen))
    assert "A-1 is not well, and A-2 goes on" in held.why  # type: ignore[union-attr]


def test_before_anything_has_passed_the_way_back_waits_for_nobody() -> None:
    for strategy in ("replicated", "singleton", "state", "cold"):
        of = spec(strategy)
        found = act(of, Story(direction="back", reason="why"), sight(of, passing={}, trouble={"A-1": "starting"}))
        assert isinstance(found, End), strategy


def test_a_standby_that_serves_is_left_to_serve() -> None:
    of = spec()
    back = Story(direction="back", reason="why", evidence={"hand over": {}})
    found = act(of, back, sight(of, passing={}, lease=LeaseDoc("A", 9, "A-7", "h7", state="held")))
    assert isinstance(found, End)


def test_without_anybody_well_to_go_back_to_nothing_is_closed() -> None:
    for strategy in ("replicated", "singleton"):
        of = spec(strategy)
        back = Story(direction="back", step="restore", reason="why", evidence={"hand over": {}, "shift": {}})
        placement = weighted(claimed(DOC, of), of, 0.0) if strategy == "replicated" else claimed(DOC, of)
        seen = sight(of, placement=placement, passing={}, waited_s=1e6, locked=False)
        found = act(of, back, seen)
        assert isinstance(found, Hold), strategy
        assert found.doc == placement


def test_a_cold_one_is_stopped_for_certain_before_the_other_starts() -> None:
    of = spec("cold")
    lost = {"lease": LeaseDoc("A", 1, "A-1", "h1", state="held"), "locked": False, "passing": {}}
    assert isinstance(act(of, Story(step="close"), sight(of, trouble={"A-1": "Agent not live"}, **lost)), Wait)
    assert isinstance(act(of, Story(step="close"), sight(of, trouble={"A-1": "stopped: by request"}, **lost)), Begin)
    back = Story(direction="back", step="close again", evidence={"close": {}})
    assert isinstance(act(of, back, sight(of, trouble={"A-2": "stopped: stopped by request"}, **lost)), Wait)
    assert isinstance(act(of, back, sight(of, trouble={"A-2": "stopped: by request"}, **lost)), Begin)


def test_what_is_kept_runs_and_what_is_held_wishes_nothing() -> None:
    of = spec("cold")
    again = act(of, Story(step="resolved", resolution="keep"), sight(of))
    assert isinstance(again, Begin)
    assert (again.step, again.doc.instances[0].state if again.doc else "") == ("close", "stopped")
    single = spec()
    ended = stopped(claimed(DOC, single), "A-2")
    kept = act(single, Story(step="resolved", resolution="keep"), sight(single, placement=ended))
    assert isinstance(kept, End)
    assert kept.doc
    assert [(p.instance, p.state) for p in kept.doc.instances] == [("A-2", "run")]
    state = spec("state")
    passing = handing_over(claimed(DOC, state, "k"), state, "A-1", 2)
    back = Story(direction="back", step="hand back", evidence={"hand over": {}})
    found = act(state, back, sight(state, placement=passing, waited_s=1e6, **held_by("A-2")))
    assert isinstance(found, Hold)
    assert (found.doc.handover, bool(found.doc.held)) == (None, True)


def lost_with_the_state(*more: Entry) -> Journal:
    """Held, because the new one's host is lost after the hand-over."""
    found = Journal(spec("state"))
    entries: list[tuple[What, dict[str, Any]]] = [("planned", {}), *(("begun", {"step": s}) for s in TO_VERIFY)]
    entries += [("rollback", {"said": "h2 is lost"}), ("begun", {"step": "revive"}), ("held", {"said": "h2 is away"})]
    for number, (what, fields) in enumerate(entries):
        found = replace(found, entries=(*found.entries, next_entry(found, what, 100.0 + number, "h1", **fields)))
    for entry in more:
        found = replace(found, entries=(*found.entries, replace(entry, seq=len(found.entries))))
    return found


TO_VERIFY = ("start", "copy", "hand over", "verify")
GIVEN_UP = Entry(0, "resolved", 200.0, "ann", "", said="ann gave up what A-2 accepted", resolution="accept_loss")
AWAY: dict[str, Any] = {"lost": frozenset({"h2"}), "passing": {"A-1": 9.0}, "locked": False, **held_by("A-2")}


def given_up(*steps: str) -> Story:
    return story_of(lost_with_the_state(GIVEN_UP, *(Entry(0, "begun", 201.0, "h1", "", step=s) for s in steps)))


def test_what_a_lost_host_has_is_given_up_when_the_old_one_takes_the_lease() -> None:
    of = spec("state")
    placement = handing_over(claimed(DOC, of, "k"), of, "A-2", 1)
    begun = act(of, given_up(), sight(of, placement=placement, **AWAY))
    assert isinstance(begun, Begin)
    assert begun.doc
    assert (begun.step, begun.said) == ("accept loss", GIVEN_UP.said)
    assert {p.instance: p.reserve for p in begun.doc.instances} == {"A-1": False, "A-2": True}
    assert isinstance(act(of, given_up("accept loss"), sight(of, **AWAY)), Wait)
    taken = sight(of, **(AWAY | {"locked": True, **held_by("A-1")}))
    back = act(of, given_up("accept loss"), taken)
    assert isinstance(back, Begin)
    assert back.step == "take back"
    over = act(of, given_up("accept loss", "take back"), taken)
    assert isinstance(over, End)
    assert (over.outcome, over.said) == ("rolled_back", f"h2 is away; {GIVEN_UP.said}")
    assert over.doc
    assert [(p.instance, p.reserve) for p in over.doc.instances] == [("A-1", False)]


@pytest.mark.parametrize("step", ["", "accept loss"])
def test_nothing_is_given_up_once_the_new_one_holds_the_lease_again(step: str) -> None:
    of = spec("state")
    there = sight(of, **held_by("A-2"))
    found = act(of, given_up(*filter(None, [step])), there)
    assert isinstance(found, Begin)
    assert found.step == "hand back"
    kept = given_up(*filter(None, [step]), "hand back", "take back")
    over = act(of, kept, sight(of))
    assert isinstance(over, End)
    assert over.said == "h2 is away"


@pytest.mark.parametrize(
    "seen",
    [{"lost": frozenset()}, {"locked": True, "passing": {}}, {"lost": frozenset({"h1", "h2"})}],
    ids=["not lost", "may hold the lease", "the old host is lost too"],
)
def test_what_was_given_up_is_given_up_only_when_it_must_be(seen: dict[str, Any]) -> None:
    of = spec("state")
    locked = {"lease": LeaseDoc("A", 2, "A-2", "h2", state="released")} if seen.get("locked") else {}
    early = act(of, given_up(), sight(of, **(AWAY | seen | locked)))
    assert isinstance(early, Wait)
    late = act(of, given_up(), sight(of, waited_s=20.0, **(AWAY | seen | locked)))
    assert isinstance(late, Begin)
    assert late.step == "revive"


def test_who_is_to_decide_is_told_of_the_last_way_while_the_new_host_is_lost() -> None:
    of, held = spec("state"), story_of(lost_with_the_state())
    lost = act(of, held, sight(of, **AWAY))
    assert isinstance(lost, Wait)
    assert lost.why.endswith("if h2 never comes back: `outrider migrate resolve m --back --accept-loss`")
    there = act(of, held, sight(of, **held_by("A-2")))
    assert isinstance(there, Wait)
    assert "accept-loss" not in there.why


def test_a_canary_that_is_alone_now_is_still_verified() -> None:
    of = spec("replicated", undecided="accept", approvals=1)
    alone = claimed(PlacementDoc("A", (Placed("A-1", "h1", "v1", state="stopped"),)), of)
    found = act(of, Story(step="canary"), sight(of, placement=alone, waited_s=1e6, counts={"A-2": GOOD}))
    assert found == Begin("approval", None, found.said, found.evidence)  # type: ignore[union-attr]


def test_a_moment_without_a_pass_or_a_lock_is_no_verdict() -> None:
    of = spec()
    blip = {"passing": {"A-1": 9.0}, "waited_s": 9.0, **held_by("A-2")}
    assert isinstance(act(of, Story(step="verify"), sight(of, unwell={"A-2": 0.5}, **blip)), Wait)
    assert isinstance(act(of, Story(step="verify"), sight(of, unwell={"A-2": 1.5}, **blip)), GoBack)
    died = sight(of, died="exited: killed by SIGKILL", **held_by("A-2"))
    assert act(of, Story(step="verify"), died) == GoBack("verify: A-2 exited: killed by SIGKILL")
    unlocked = {"locked": False, **held_by("A-2")}
    assert isinstance(act(of, Story(step="verify"), sight(of, unheld_s=0.5, **unlocked)), Wait)
    assert isinstance(act(of, Story(step="verify"), sight(of, unheld_s=1.5, **unlocked)), GoBack)


def to_v2(strategy: Strategy = "singleton", **policy: Any) -> Spec:
    of = spec(strategy, **policy)
    return replace(of, target=replace(of.target, version="v2"))


def published(version: str, before: str) -> AgentDoc:
    return AgentDoc("A", "f", Agent(), version, previous=AgentDoc("A", "f", Agent(), before))


@pytest.mark.parametrize(
    ("strategy", "step"),
    [(strategy, step.name) for strategy, steps in FORWARD.items() for step in steps] + [("singleton", "approval")],
)
def test_one_whose_version_was_published_over_goes_back_from_every_step(strategy: Strategy, step: str) -> None:
    of = to_v2(strategy, undecided="accept")
    ready = {"copied": Copied(0, 0), "waited_s": 1e6, "counts": {"A-2": GOOD}, "trouble": {"A-1": "parked"}}
    over = sight(of, agent=published("v3", "v1"), **ready, **held_by("A-2"))
    assert act(of, Story(step=step), over) == GoBack("A is published at version v3, not at v2 any more")
    known = sight(of, agent=published("v3", "v2"), **ready, **held_by("A-2"))
    assert isinstance(act(of, Story(step=step), known), Begin | End)  # it brings what it said, and that is known


def test_one_that_has_not_begun_is_cancelled_when_another_version_is_published() -> None:
    of = to_v2()
    fleet = Fleet({"A": published("v3", "v2")}, {"A": DOC}, {name: HostDoc(Host(name)) for name in ("h1", "h2")})
    refused = tuple(refusals(of, fleet))
    assert refused == ("A is published at version v3, not at v2",)
    assert act(of, Story(), sight(of, refused=refused, waited_s=11.0)) == End("cancelled", refused[0])


@pytest.mark.parametrize("strategy", ["replicated", "singleton", "state", "cold"])
def test_what_is_kept_is_what_is_published_or_goes_back(strategy: Strategy) -> None:
    of, kept = to_v2(strategy), Story(step="resolved", resolution="keep")
    over = act(of, kept, sight(of, agent=published("v3", "v1"), **held_by("A-2")))
    assert over == GoBack("A is published at version v3, not at v2 any more")
    assert isinstance(act(of, kept, sight(of, agent=published("v3", "v2"), **held_by("A-2"))), Begin | End)


def test_an_order_of_a_later_version_is_not_carried_out_in_part() -> None:
    of = spec()
    planned = Journal(of, unknown=("gently", "policy.shadow"))
    planned = planned.followed_by(next_entry(planned, "planned", 1.0, "ann"))
    refused = act(of, story_of(planned), sight(of))
    assert isinstance(refused, End)
    assert (refused.outcome, refused.doc) == ("cancelled", None)
    assert "does not know gently, policy.shadow: upgrade its shim" in refused.said
    for what, more in (("begun", {"step": "start"}), ("rollback", {}), ("held", {})):
        going = planned.followed_by(next_entry(planned, what, 2.0, "h1", **more))  # type: ignore[arg-type]
        waits = act(of, story_of(going), sight(of))
        assert isinstance(waits, Wait)
        assert (waits.person, "does not know gently" in waits.why) == (True, True)


def test_what_goes_back_ends_at_its_own_version_whatever_is_published() -> None:
    of = to_v2()
    placement = claimed(DOC, of)
    back = Story(direction="back", reason="A is published at version v3, not at v2 any more")
    for doc in (published("v3", "v1"), published("v3", "v2"), published("v4", "v3")):
        found = act(of, back, sight(of, placement=placement, agent=doc))
        assert isinstance(found, End)
        assert found.doc
        assert [(p.instance, p.version) for p in found.doc.instances] == [("A-1", "v1")]
