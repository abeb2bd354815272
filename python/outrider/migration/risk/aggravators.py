"""What adds points above the 35: no proof of a backup, no budget, too little to judge by, a bad moment. Pure."""

from __future__ import annotations

from outrider.fleet.graph import edges
from outrider.fleet.spec import Fleet
from outrider.migration.judge import ALPHA, TOLERANCE, detectable, tolerated
from outrider.migration.risk.factors import counted
from outrider.migration.risk.measures import DAY_S
from outrider.migration.risk.observed import Observations, Published, Question, Traffic
from outrider.migration.risk.score import Measure

PROOF_DAYS = 7
OBJECTIVE = 0.999  # share of the time that agents shall be callable, until a fleet file can say another
BUDGET_LEFT = 0.10
SHORTEST_S = DAY_S  # of observed time, before an error budget says anything
PEAK = 0.80
NEAR_S, TIMES = 5.0, 10.0  # the judge shall see ten times the errors within five seconds


def aggravating(published: Published, observed: Observations, question: Question, state: Measure) -> dict[str, Measure]:
    """A1 to A6: 1 if it is so, 0 if not, no value if nobody can tell."""
    name = question.agent
    traffic = (observed.traffic or {}).get(name)
    return {
        "A1": _unproved(observed, name, keeps_state=bool(state.value)),
        "A2": _budget(observed, name),
        "A3": _blind(traffic) if traffic else Measure(None, observed.why("traffic")),
        "A4": _peak(traffic) if traffic else Measure(None, observed.why("traffic")),
        "A5": _changing(published, observed, name),
        "A6": _one_way(question, state),
    }


def proof_age(observed: Observations, name: str, level: str) -> Measure:
    """Days since a backup of that level was last proved; no value if none was, or nobody knows."""
    if observed.backups is None:
        return Measure(None, observed.why("backups"))
    proof = observed.backups.get(name, {}).get(level)
    if proof is None or not proof.verified_at:
        return Measure(None, f"no backup of level {level} was ever proved")
    days = (observed.at - proof.verified_at) / DAY_S
    return Measure(days, f"{level} {proof.id} on {proof.host}, restored {days:.1f} days ago")


def _unproved(observed: Observations, name: str, *, keeps_state: bool) -> Measure:
    """Of its state where it keeps some, else of anything."""
    levels = ["state"] if keeps_state else sorted((observed.backups or {}).get(name, {})) or ["configuration"]
    ages = [proof_age(observed, name, level) for level in levels]
    known = [age for age in ages if age.value is not None]
    if not known:
        return Measure(None if observed.backups is None else 1, ages[0].evidence)
    newest = min(known, key=lambda age: age.value or 0)
    return Measure(not 0 <= (newest.value or 0) <= PROOF_DAYS, newest.evidence)


def _budget(observed: Observations, name: str) -> Measure:
    if observed.uptime is None:
        return Measure(None, observed.why("uptime"))
    row = observed.uptime.get(name)
    if row is None or row.observed_s < SHORTEST_S:
        return Measure(None, f"observed for {(row.observed_s if row else 0) / 3600:.1f} h; it takes a day to tell")
    left = 1 - row.down_s / (row.observed_s * (1 - OBJECTIVE))
    evidence = f"away for {row.down_s:.1f} s of {row.observed_s / DAY_S:.1f} days: {max(left, 0):.0%} of it is left"
    return Measure(left < BUDGET_LEFT, evidence)


def _blind(traffic: Traffic) -> Measure:
    """Whether the calls of five seconds are too few for the judge to see ten times the errors."""
    n = int(traffic.per_s * NEAR_S)
    if traffic.calls < 1:
        return Measure(1, f"no calls to compare with ({traffic.source})")
    calls = max(1, round(traffic.calls))
    p0 = tolerated(min(round(traffic.failed), calls), calls)
    sees = detectable(n, p0, ALPHA)
    wanted = min(1.0, TIMES * p0 / TOLERANCE)
    evidence = f"{counted(n, 'call')} in {NEAR_S:.0f} s could show {sees:.1%} of errors, wanted {wanted:.1%}"
    return Measure(sees > wanted or sees >= 1.0, evidence)


def _peak(traffic: Traffic) -> Measure:
    if traffic.peak_per_s is None:
        return Measure(None, "no window is declared, and only Prometheus knows the daily peak (--prometheus)")
    near = traffic.per_s > PEAK * traffic.peak_per_s
    return Measure(near, f"{traffic.per_s:.1f} calls/s, at most {traffic.peak_per_s:.1f} in the last day")


def _changing(published: Published, observed: Observations, name: str) -> Measure:
    if not observed.running:
        return Measure(None, observed.why("health"))
    fleet = Fleet("", {key: doc.agent for key, doc in published.agents.items()})
    needs = edges(fleet)[name]
    busy = [need for need in needs if _is_changing(published, need)]
    return Measure(
        bool(busy),
        f"{', '.join(busy)} is being changed" if busy else f"of {counted(len(needs), 'need')} none is moving",
    )


def _is_changing(published: Published, need: str) -> bool:
    """Its instances move, pass on a lease, or are not all of the version that is wanted."""
    doc = published.placements.get(need)
    if doc is None:
        return False
    names = [placed.instance for placed in doc.instances]
    old = any(placed.version != published.agents[need].version for placed in doc.instances)
    return len(names) != len(set(names)) or doc.handover is not None or old


def _one_way(question: Question, state: Measure) -> Measure:
    if question.change is None:
        return Measure(0, "the version stays")
    if question.readable is not None:
        return Measure(not question.readable, "so it was said when the question was asked")
    if state.value == 0:
        return Measure(0, f"it keeps no files: {state.evidence}")
    return Measure(None, "nobody says whether the old version can read what the new one writes (--readable)")
