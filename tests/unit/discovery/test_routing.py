"""Routing sets: the best evidence first, what is gone never, and never emptied by suspicion alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider.discovery.records import Instance
from outrider.discovery.routing import Evidence, Observed, routing_set


def seen(name: str, evidence: Evidence) -> Observed:
    return Observed(Instance("A", name, "h", "127.0.0.1", 1, {}), evidence)


def names(*observed: Observed) -> list[tuple[str, str]]:
    return [(instance.instance, instance.status) for instance in routing_set(observed)]


def test_passing_comes_before_warning_and_suspicion_leaves() -> None:
    found = names(seen("A-1", "warning"), seen("A-2", "suspected"), seen("A-3", "passing"), seen("A-4", "gone"))
    assert found == [("A-3", "passing"), ("A-1", "warning")]


def test_when_all_are_suspected_they_stay_and_say_so() -> None:
    assert names(seen("A-2", "suspected"), seen("A-1", "suspected"), seen("A-3", "gone")) == [
        ("A-1", "critical"),
        ("A-2", "critical"),
    ]


_evidence = st.sampled_from(["passing", "warning", "suspected", "gone"])


@given(st.lists(_evidence, max_size=8))
def test_it_is_empty_only_if_all_are_gone_and_never_routes_what_is(evidence: list[Evidence]) -> None:
    observed = [seen(f"A-{n}", item) for n, item in enumerate(evidence)]
    routed = routing_set(observed)
    assert bool(routed) == any(item != "gone" for item in evidence)
    gone = {item.instance.instance for item in observed if item.evidence == "gone"}
    assert not gone & {instance.instance for instance in routed}
