"""A call that travels: an agent asks its needs, they ask theirs, and the answer is the tree of who answered.

Cycles are real, so the names already asked travel along and nobody is asked twice; every hop gets a part of the time
that is left, so that one hung agent leaves some for the others.
"""

from __future__ import annotations

import time

from call import CallError, call, post_json
from wire import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Endpoint = tuple[str, str, int, bool]  # instance, address, port, whether it takes calls of Outrider's
    Locate = Callable[[str], list[Endpoint]]  # raises LookupError with a message
    Post = Callable[[str, int, str, dict[str, Any], float], dict[str, Any]]
    Call = Callable[[str, str, dict[str, Any], float], dict[str, Any]]

DEFAULT_MS, MAX_MS = 2000, 30_000
HOP_SHARE = 0.75
MARGIN_S = 0.02


def chain(
    agent: str,
    instance: str,
    needs: Iterable[str],
    document: dict[str, Any],
    locate: Locate,
    post: Post = post_json,
    clock: Callable[[], float] = time.monotonic,
    call: Call = call,
) -> dict[str, Any]:
    """Ask every need that was not asked before. `document` may hold deadline_ms and visited.

    Returns agent, instance, ms, needs (a tree of the same shape; {agent, error, ms} for one that gave no answer,
    {agent, skipped} for one already asked), visited (names), answered and failed (counts). Raises Refused.
    """
    began = clock()
    until = began + _deadline_s(document)
    visited = _visited(document)
    if agent not in visited:
        visited.append(agent)
    children: list[dict[str, Any]] = []
    for need in needs:
        if need in visited:
            children.append({"agent": need, "skipped": "already asked"})
            continue
        visited.append(need)
        child = _ask(need, visited, until, locate, post, clock, call)
        visited += [name for name in child.pop("visited", ()) if name not in visited]
        children.append(child)
    return {
        "agent": agent,
        "instance": instance,
        "ms": _ms(clock() - began),
        "needs": children,
        "visited": visited,
        "answered": 1 + sum(child.get("answered", 0) for child in children),
        "failed": sum(child.get("failed", 1 if "error" in child else 0) for child in children),
    }


def _ask(
    need: str, visited: list[str], until: float, locate: Locate, post: Post, clock: Callable[[], float], call: Call
) -> dict[str, Any]:
    """The need's own tree, or what went wrong. One that takes no calls is asked over HTTP, each instance in turn."""
    began = clock()
    try:
        endpoints = locate(need)
    except LookupError as error:
        return {"agent": need, "error": str(error), "ms": _ms(clock() - began)}
    reasons = []
    for _, address, port, takes_calls in endpoints:
        hop_s = (until - clock() - MARGIN_S) * HOP_SHARE
        if hop_s <= 0:
            reasons.append("the deadline is over")
            break
        document = {"deadline_ms": hop_s * 1000, "visited": visited}
        try:
            if takes_calls:
                return call(need, "chain", document, hop_s + MARGIN_S / 2)
            return post(address, port, "/chain", document, hop_s + MARGIN_S / 2)
        except CallError as error:
            reasons.append(str(error))
        if takes_calls:
            break  # the others were tried already
    return {"agent": need, "error": "; ".join(reasons) or "no instance serves it", "ms": _ms(clock() - began)}


def _deadline_s(document: dict[str, Any]) -> float:
    value = document.get("deadline_ms", DEFAULT_MS)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_MS:
        raise Refused(422, f"deadline_ms is {value!r}: more than 0 and at most {MAX_MS} is expected")
    return value / 1000


def _visited(document: dict[str, Any]) -> list[str]:
    value = document.get("visited", [])
    if not isinstance(value, list) or len(value) > 10_000 or not all(isinstance(name, str) for name in value):
        raise Refused(422, "visited is not a list of agent names")
    return list(value)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
