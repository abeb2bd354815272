"""Waves put needs first and keep cycles together, at any size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider.fleet.graph import cycles, dependants, edges, waves
from outrider.fleet.spec import Agent, Fleet


def fleet(**needs: tuple[str, ...]) -> Fleet:
    return Fleet("lab", {name: Agent(module="x", needs=them) for name, them in needs.items()})


def test_needs_come_first_and_a_cycle_is_one_wave() -> None:
    made = fleet(A=(), B=("A",), C=("B", "D"), D=("C",), E=("D",))
    assert waves(made) == [("A",), ("B",), ("C", "D"), ("E",)]
    assert cycles(made) == [("C", "D")]
    assert dependants(made, "C") == ("D",)


def test_an_agent_that_needs_itself_is_a_cycle() -> None:
    assert cycles(fleet(A=("A",))) == [("A",)]


@given(st.dictionaries(st.sampled_from("ABCDEFG"), st.lists(st.sampled_from("ABCDEFG"), max_size=4).map(tuple)))
def test_every_agent_is_in_one_wave_and_needs_only_earlier_ones_or_its_cycle(needs: dict[str, tuple[str, ...]]) -> None:
    made = fleet(**needs)
    order = {name: number for number, wave in enumerate(waves(made)) for name in wave}
    together = {name: set(cycle) for cycle in cycles(made) for name in cycle}
    assert order.keys() == needs.keys()
    for name, them in edges(made).items():
        for need in them:
            assert order[need] < order[name] or need in together.get(name, ())


def test_a_chain_of_ten_thousand_does_not_exhaust_the_stack() -> None:
    made = fleet(**{f"A{i}": (f"A{i + 1}",) if i < 9999 else () for i in range(10_000)})
    assert len(waves(made)) == 10_000
