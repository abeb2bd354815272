"""Measures from what was asked and seen: change, history, place and use. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from outrider.host.reports import EventRow
from outrider.migration.risk.factors import counted
from outrider.migration.risk.landing import Landing
from outrider.migration.risk.observed import Observations, Question
from outrider.migration.risk.score import Measure, smoothed_rate

DAY_S = 86400.0
LAST = 20  # migrations that the failure rate is of: older ones tell of another system
INCIDENTS = ("critical", "parked")
ROLES = ("holder", "standby")  # events beside those of the status
ENVIRONMENT = ("kernel", "python", "gpu", "driver")
AT_MOST_DAYS = 90


def of_change(question: Question) -> dict[str, Measure]:
    """L1 and L2: nothing is changed where only the host is."""
    change = question.change
    if change is None:
        return {"L1": Measure(0, "the version stays", "another place only"), "L2": Measure(0, "the version stays")}
    if isinstance(change, str):
        return {"L1": Measure(None, change), "L2": Measure(None, change)}
    evidence = f"{counted(change.lines, 'line')} added or removed in {counted(change.files, 'file')}"
    lines = float(change.lines)
    if change.opaque:
        lines, evidence = math.inf, f"files without lines differ: {', '.join(change.opaque[:3])}"
    return {"L1": Measure(lines, evidence), "L2": Measure(change.files, evidence)}


def of_history(observed: Observations, name: str, landing: Landing) -> dict[str, Measure]:
    """L3, L4 and I6: what happened to this agent, and to migrations like this one."""
    return {
        "L3": _last_incident(observed, name),
        "L4": _failure_rate(observed, name, landing.target),
        "I6": _way_back(observed, name),
    }


def _last_incident(observed: Observations, name: str) -> Measure:
    record = observed.record
    if record is None or observed.outcomes is None:
        return Measure(None, observed.why("outcomes" if record else "record"))
    at, what = max(
        [(event.at, f"{event.what} on {event.host}: {event.why or 'no reason was told'}")
         for event in record.events if event.agent == name and event.what in INCIDENTS]
        + [(each.ended, f"a migration to {each.target} failed")
           for each in observed.outcomes if each.agent == name and each.failed],
        default=(0.0, ""),
    )  # fmt: skip
    if what:
        return Measure((observed.at - at) / DAY_S, what)
    days = (observed.at - record.since) / DAY_S
    if days > AT_MOST_DAYS:
        return Measure(math.inf, f"nothing in {days:.0f} days of record")
    # Before the record began anything may have been: its length is all that is known.
    return Measure(days, f"the record goes back {days:.1f} days", f"none in {days:.1f} days of record")


def _failure_rate(observed: Observations, name: str, target: str) -> Measure:
    if observed.outcomes is None:
        return Measure(None, observed.why("outcomes"))
    like = [each for each in observed.outcomes if each.agent == name or each.target == target][-LAST:]
    failed = sum(each.failed for each in like)
    evidence = f"{failed} of {len(like)} migrations of it or to {target or 'there'} failed; at first one in ten"
    return Measure(smoothed_rate(failed, len(like)), evidence)


def _way_back(observed: Observations, name: str) -> Measure:
    """Rollbacks if there were any, else starts: going back is starting the old one, and a little more."""
    if observed.outcomes is None:
        return Measure(None, observed.why("outcomes"))
    backs = [each.way_back_s for each in observed.outcomes if each.agent == name and each.way_back_s is not None]
    if backs:
        return Measure(_p95(backs), f"{counted(len(backs), 'rollback')} of it")
    if observed.record is None:
        return Measure(None, observed.why("record"))
    starts = _starts([event for event in observed.record.events if event.agent == name])
    if not starts:
        return Measure(None, "neither a rollback nor a start of it is on record")
    return Measure(_p95(starts), f"no rollback of it is on record, but {counted(len(starts), 'start')}")


def _starts(events: Sequence[EventRow]) -> list[float]:
    """How long each start took: `starting` lasted until it passed."""
    status: dict[tuple[str, str], str] = {}
    found = []
    for event in events:
        if event.what in ROLES:
            continue
        spot = event.instance, event.host
        if event.what == "passing" and status.get(spot) == "starting" and event.lasted_s > 0:
            found.append(event.lasted_s)
        status[spot] = event.what
    return found


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def of_place(observed: Observations, landing: Landing) -> dict[str, Measure]:
    """L6 and L7: what is otherwise on the target, and the room there."""
    return {"L6": _environment(observed, landing), "L7": landing.room}


def _environment(observed: Observations, landing: Landing) -> Measure:
    if landing.source and landing.source == landing.target:
        return Measure(0, f"it stays on {landing.source}")
    if observed.environments is None:
        return Measure(None, observed.why("environments"))
    silent = [host or "no host" for host in (landing.source, landing.target) if host not in observed.environments]
    if silent:
        return Measure(None, f"no shim tells what {' and '.join(silent)} is like")
    here, there = observed.environments[landing.source], observed.environments[landing.target]
    # What one of them does not tell counts as changed.
    differs = [key for key in ENVIRONMENT if not here.get(key) or here.get(key) != there.get(key)]
    told = [f"{key} {here.get(key) or 'not known'} to {there.get(key) or 'not known'}" for key in differs]
    return Measure(len(differs), "; ".join(told) or f"{landing.source} and {landing.target} are alike")


def of_use(observed: Observations, name: str) -> dict[str, Measure]:
    """I4 and I5: how much it is called, and by how many it is served."""
    serve = observed.health
    healthy = (
        Measure(serve.get(name, 0), "as Consul says") if serve is not None else Measure(None, observed.why("health"))
    )
    return {"I4": _calls(observed, name), "I5": healthy}


def _calls(observed: Observations, name: str) -> Measure:
    traffic = (observed.traffic or {}).get(name)
    if traffic is None:
        return Measure(None, observed.why("traffic"))
    if traffic.partial and traffic.per_s < 50:
        return Measure(None, f"{traffic.per_s:.1f} calls/s are seen ({traffic.source}), but {traffic.partial}")
    return Measure(traffic.per_s, traffic.source)


def known_outcomes(observed: Observations) -> tuple[int, int]:
    """Failed migrations, and all of them, of the whole fleet."""
    outcomes = observed.outcomes or ()
    return sum(each.failed for each in outcomes), len(outcomes)
