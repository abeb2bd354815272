"""The call that travels: cycles end, hung agents leave time for others, everybody is asked once."""

from typing import Any

import pytest

from call import CallError
from chain import chain
from wire import Refused

NEEDS = {"A": ["B", "C"], "B": ["C", "A"], "C": ["A", "D"], "D": []}


class Fleet:
    """Agents that answer through the same function, with a clock that calls move."""

    def __init__(self, down: tuple[str, ...] = (), hung: tuple[str, ...] = ()) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.down, self.hung = down, hung

    def locate(self, name: str) -> list[tuple[str, str, int, bool]]:
        if name not in NEEDS:
            raise LookupError(f"no agent {name}")
        return [(f"{name}-1", name, 1, False)]

    def post(self, address: str, _port: int, _path: str, document: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        self.asked.append(address)
        if address in self.down:
            raise CallError("refused")
        if address in self.hung:
            self.now += timeout_s
            raise CallError("no answer")
        self.now += 0.001
        return self.chain(address, document)

    def chain(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        return chain(name, f"{name}-1", NEEDS[name], document, self.locate, self.post, lambda: self.now)


def test_a_cycle_ends_and_everybody_is_asked_once() -> None:
    fleet = Fleet()
    tree = fleet.chain("A", {})
    assert fleet.asked == ["B", "C", "D"]
    assert (tree["answered"], tree["failed"]) == (4, 0)
    assert tree["visited"] == ["A", "B", "C", "D"]
    assert tree["needs"][1] == {"agent": "C", "skipped": "already asked"}


def test_one_that_is_down_is_named_and_the_others_answer() -> None:
    tree = Fleet(down=("B",)).chain("A", {})
    assert tree["needs"][0]["error"] == "refused"
    assert tree["needs"][1]["agent"] == "C"
    assert (tree["answered"], tree["failed"]) == (3, 1)


def test_a_hung_one_leaves_time_for_the_others_within_the_deadline() -> None:
    fleet = Fleet(hung=("B",))
    tree = fleet.chain("A", {"deadline_ms": 1000})
    assert "error" in tree["needs"][0]
    assert tree["needs"][1]["answered"] == 2
    assert fleet.now <= 1.0


def test_with_everybody_hung_it_still_ends_in_time() -> None:
    fleet = Fleet(hung=("B", "C", "D"))
    assert fleet.chain("A", {"deadline_ms": 500})["failed"] == 2
    assert fleet.now <= 0.5


def test_an_unknown_need_is_an_error_in_the_tree() -> None:
    tree = chain("X", "X-1", ["Nobody"], {}, Fleet().locate)
    assert tree["needs"][0]["error"] == "no agent Nobody"


def test_the_next_instance_is_tried() -> None:
    def post(address: str, *_: Any) -> dict[str, Any]:
        if address == "dead":
            raise CallError("refused")
        return {"agent": "B", "answered": 1, "failed": 0, "visited": []}

    tree = chain("A", "A-1", ["B"], {}, lambda _: [("B-1", "dead", 1, False), ("B-2", "alive", 1, False)], post)
    assert (tree["answered"], tree["failed"]) == (2, 0)


def test_one_that_takes_calls_is_called_once_whatever_instances_it_has() -> None:
    called = []

    def call(agent: str, method: str, document: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        called.append((agent, method, document["visited"], timeout_s > 0))
        raise CallError("nobody serves it")

    tree = chain("A", "A-1", ["B"], {}, lambda _: [("B-1", "x", 1, True), ("B-2", "y", 1, True)], call=call)
    assert called == [("B", "chain", ["A", "B"], True)]
    assert tree["needs"][0]["error"] == "nobody serves it"


@pytest.mark.parametrize(
    "document",
    [{"deadline_ms": x} for x in (0, -1, 1e9, "1", True, None, float("nan"))]
    + [{"visited": x} for x in ("A", [1], {"A": 1}, ["x"] * 10_001)],
)
def test_wrong_input_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        Fleet().chain("A", document)
    assert refused.value.status == 422
