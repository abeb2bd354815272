"""`outrider migrate` against a shim's real socket."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from outrider.cli import migrating
from outrider.cli.migration_plan_view import plan_lines
from outrider.cli.migration_view import lines_of, screen
from outrider.migration.staged.preview import PlanReport, PlansReport, Sensed, StepPlan
from outrider.migration.staged.records import End, Journal, Policy, RiskNote, Spec, What, next_entry
from outrider.migration.staged.report import MigrationReport, MigrationsReport, report_of
from outrider.migration.staged.sight import Wait
from unit.cli.conftest import answer, serve

SPEC = Spec(
    "m1", "Memory", "singleton", End("Memory-1", "pc1", "aaaaaaaaaa"), End("Memory-2", "pc2", "aaaaaaaaaa"),
    Policy(approvals=1), by="ann", at=1000.0, why="a new disk", risk=RiskNote(12, "medium", ("state 4",)),
)  # fmt: skip
PLAN = PlanReport(
    "m1", "Memory", "singleton", SPEC.source, SPEC.target, 1, SPEC.policy,
    (StepPlan("start", "prepare", 60.0, "Memory-2 starts"), StepPlan("hand over", "cutover", 5.0, "it passes on", 1)),
    judge=(Sensed("verify", "errors", 369, 0.004, 0.041), Sensed("verify", "slow calls", 0, 0.1, 1.0)),
    calls_s=12.3, room="pc2 has 4 cores left without it", risk=SPEC.risk,
)  # fmt: skip


def journal(*whats: tuple[What, dict[str, Any]]) -> Journal:
    made = Journal(SPEC)
    for number, (what, more) in enumerate((("planned", {"said": SPEC.why}), *whats)):
        by = "ann" if what in ("planned", "approved") else "pc1"
        made = made.followed_by(next_entry(made, what, 1000.0 + number, by, **more))
    return made


START: tuple[What, dict[str, Any]] = ("begun", {"step": "start"})
OVER: tuple[What, dict[str, Any]] = ("begun", {"step": "hand over", "said": "warm"})
VERIFY: tuple[What, dict[str, Any]] = ("begun", {"step": "verify", "said": "Memory-2 holds the lease, epoch 7"})
GO: tuple[What, dict[str, Any]] = (
    "ended",
    {"outcome": "finalised", "said": "go: errors 0/369 bad", "evidence": {"n": 369}},
)
WORSE: tuple[What, dict[str, Any]] = ("rollback", {"said": "errors 30/60 bad"})
BACK: tuple[What, dict[str, Any]] = ("ended", {"outcome": "rolled_back", "said": "errors 30/60 bad"})
HELD: tuple[What, dict[str, Any]] = ("held", {"said": "Memory-2 does not give it back"})


class Shim:
    """What it says of m1: each look takes the next of `reports`, and stays at the last."""

    def __init__(self) -> None:
        self.reports = [report_of(journal(START), 1002.0)]
        self.asked: list[str] = []
        self.looked = threading.Event()
        self.refuses: tuple[int, str] | None = None

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/migration-plans", self._plan)
        app.router.add_get("/v1/migrations", self._all)
        app.router.add_get("/v1/migrations/m1", self._one)
        app.router.add_post("/v1/migrations/m1/{action}", self._steer)
        return app

    async def _plan(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        return self._refusal() or answer(PlansReport((PLAN,), (("Memory",),), "dry" not in request.query))

    async def _all(self, request: web.Request) -> web.Response:
        return answer(MigrationsReport((self.reports[0],)))

    async def _one(self, request: web.Request) -> web.Response:
        self.looked.set()
        return answer(self.reports.pop(0) if len(self.reports) > 1 else self.reports[0])

    async def _steer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        return self._refusal() or answer(self.reports[0])

    def _refusal(self) -> web.Response | None:
        if self.refuses is None:
            return None
        status, said = self.refuses
        return answer({"error": said, "hint": "`outrider migrate list` shows it"}, status)

    def goes(self, *whats: tuple[What, dict[str, Any]]) -> None:
        """It goes through these, one at each look."""
        self.reports = [report_of(journal(*whats[:length]), 1050.0) for length in range(len(whats) + 1)]


@pytest.fixture
def shim(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shim]:
    monkeypatch.setattr(migrating, "POLL_S", 0.001)
    monkeypatch.setattr(migrating, "who", lambda: "ann")
    made = Shim()
    running = serve(runtime, made.app())
    next(running)
    yield made
    assert next(running, None) is None


Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def test_a_plan_shows_steps_limits_gates_and_what_would_show(shim: Shim, outrider: Run, capsys: Capture) -> None:
    assert outrider("migrate", "plan", "Memory", "--to", "pc2", "--approvals", "1", "--canary", "0.2") == 0
    shown = capsys.readouterr().out
    assert "Memory: Memory-1 -> Memory-2, pc1 -> pc2, version aaaaaaaa (singleton)" in shown
    assert "  cutover  hand over  at most 5 s   it passes on" in shown
    assert "verify: errors of some 369: 0.4% is tolerated, worse shows from 4.1% on" in shown
    assert "verify: slow calls of some 0: 10.0% is tolerated, too few to show anything" in shown
    assert "approval  1 person before `hand over`" in shown
    assert "risk      12 points, medium: state 4" in shown
    assert "nothing was written; `outrider migrate run Memory --to pc2 --canary 0.2 --approvals 1` does it" in shown
    assert shim.asked == [
        "/v1/migration-plans?agents=Memory&to=pc2&by=ann&policy=%7B%22canary%22%3A0.2%2C%22approvals%22%3A1%7D&dry="
    ]


def test_a_run_is_followed_to_its_end(shim: Shim, outrider: Run, capsys: Capture) -> None:
    shim.goes(START, OVER, VERIFY, GO)
    assert outrider("migrate", "run", "Memory", "--to", "pc2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [asked.endswith("dry=") for asked in shim.asked] == [True, False]
    assert sum(line.endswith("Memory: cutover: hand over: warm") for line in lines) == 1
    assert lines[-2].endswith("Memory: finalised after 4.00 s: go: errors 0/369 bad")
    assert lines[-1] == "  next: outrider migrate show m1"


def test_a_rehearsal_is_asked_for_and_ends_well_with_the_command_that_does_it(
    shim: Shim, outrider: Run, capsys: Capture
) -> None:
    assert outrider("migrate", "plan", "Memory", "--to", "pc2", "--rehearse") == 0
    assert "`outrider migrate run Memory --to pc2 --rehearse` does it" in capsys.readouterr().out
    rehearsed: tuple[What, dict[str, Any]] = ("ended", {"outcome": "rehearsed", "said": "Memory-2 was ready"})
    shim.goes(START, rehearsed)
    assert outrider("migrate", "run", "Memory", "--to", "pc2", "--rehearse") == 0
    assert shim.asked == [
        f"/v1/migration-plans?agents=Memory&to=pc2&by=ann&rehearse={dry}" for dry in ("&dry=", "&dry=", "")
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].endswith("Memory: rehearsed after 2.00 s: Memory-2 was ready")
    assert lines[-2] == "  next: outrider migrate run Memory --instance Memory-1 --to pc2"


def test_a_plan_of_a_rehearsal_says_that_it_goes_again_and_asks_nobody() -> None:
    lines = plan_lines(replace(PLAN, rehearse=True, steps=PLAN.steps[:1]))
    assert lines[0].endswith("(a rehearsal of singleton)")
    assert "  rehearsal then Memory-2 goes again; no call goes to it, and nobody need approve it" in lines
    assert not any("approval" in line or "undecided" in line for line in lines)


def test_one_that_is_not_watched_says_how_to_watch_it(shim: Shim, outrider: Run, capsys: Capture) -> None:
    assert outrider("migrate", "run", "Memory", "--to", "pc2", "--detach") == 0
    assert "asked for: m1\n  `outrider migrate watch m1` follows it" in capsys.readouterr().out


def test_one_that_went_back_is_a_failure(shim: Shim, outrider: Run, capsys: Capture) -> None:
    shim.goes(START, OVER, VERIFY, WORSE, BACK)
    assert outrider("migrate", "watch", "m1") == 1
    assert "rolled back after 5.00 s: errors 30/60 bad" in capsys.readouterr().out


def test_one_that_is_held_ends_the_watching_with_both_ways_out(shim: Shim, outrider: Run, capsys: Capture) -> None:
    shim.goes(START, OVER, WORSE, HELD)
    assert outrider("migrate", "watch", "m1") == 1
    shown = capsys.readouterr().out
    assert "HELD: Memory-2 does not give it back" in shown
    assert "next: outrider migrate resolve m1 --keep\n  next: outrider migrate resolve m1 --back" in shown


def test_a_person_who_is_waited_for_is_told_once(shim: Shim, outrider: Run, capsys: Capture) -> None:
    waits = report_of(journal(START), 1002.0, Wait("1 more must approve it", person=True))
    shim.reports = [waits, waits, waits, report_of(journal(START, OVER, VERIFY, GO), 1010.0)]
    assert outrider("migrate", "watch", "m1") == 0
    assert capsys.readouterr().out.count("waits: 1 more must approve it") == 1


def test_programs_get_a_line_for_each_change(shim: Shim, outrider: Run, capsys: Capture) -> None:
    shim.goes(START, OVER, VERIFY, GO)
    assert outrider("migrate", "watch", "m1", "--json") == 0
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert states == ["waiting", "running", "running", "running", "finalised"]


def test_who_stops_watching_is_told_that_it_goes_on(shim: Shim, outrider: Run, capsys: Capture) -> None:
    threading.Thread(target=lambda: shim.looked.wait(10) and signal.raise_signal(signal.SIGINT)).start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrating, "POLL_S", 0.01)
        assert outrider("migrate", "watch", "m1") == 130
    assert "it goes on; `outrider migrate watch m1` shows it again" in capsys.readouterr().err


def test_a_shim_that_is_away_for_a_moment_ends_no_watching(
    shim: Shim, outrider: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim.goes(START, OVER, VERIFY, GO)
    real, looks = migrating._one, iter(range(100))

    def torn(*args: Any) -> MigrationReport:
        if next(looks) == 1:
            raise migrating.ConsulUnreachable("no leader")
        return real(*args)

    monkeypatch.setattr(migrating, "_one", torn)
    assert outrider("migrate", "watch", "m1") == 0
    assert "no leader; the migration goes on" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["approve", "rollback", "pause", "resume"])
def test_people_steer_by_name(shim: Shim, outrider: Run, capsys: Capture, verb: str) -> None:
    said = ["--said", "looks good"] if verb in ("approve", "rollback") else []
    assert outrider("migrate", verb, "m1", *said) == 0
    what = "&approves=cutover" if verb == "approve" else ""
    assert shim.asked == [f"/v1/migrations/m1/{verb}?by=ann&said={'looks+good' if said else ''}{what}"]
    assert f"m1: {verb} is noted, by ann" in capsys.readouterr().out


def test_a_verdict_is_approved_as_such(shim: Shim, outrider: Run) -> None:
    assert outrider("migrate", "approve", "m1", "--verdict") == 0
    assert shim.asked == ["/v1/migrations/m1/approve?by=ann&said=&approves=verdict"]


def test_what_is_held_is_decided_one_way_or_the_other(shim: Shim, outrider: Run) -> None:
    assert outrider("migrate", "resolve", "m1") == 2
    assert outrider("migrate", "resolve", "m1", "--keep", "--back") == 2
    assert outrider("migrate", "resolve", "m1", "--keep") == 0
    assert shim.asked == ["/v1/migrations/m1/resolve?by=ann&said=&resolution=keep"]


def test_a_loss_is_accepted_with_a_reason_and_on_the_way_back_only(shim: Shim, outrider: Run, capsys: Capture) -> None:
    for words in (["--keep", "--accept-loss", "--said", "x"], ["--back", "--accept-loss"], ["--accept-loss"]):
        assert outrider("migrate", "resolve", "m1", *words) == 2
    assert "outrider migrate resolve m1 --back --accept-loss --said TEXT" in capsys.readouterr().err
    assert shim.asked == []
    assert outrider("migrate", "resolve", "m1", "--back", "--accept-loss", "--said", "burnt") == 0
    assert shim.asked == ["/v1/migrations/m1/resolve?by=ann&said=burnt&resolution=accept_loss"]


@pytest.mark.parametrize(("status", "code"), [(409, 1), (404, 1), (503, 3)])
def test_a_refusal_is_said_with_what_to_do(shim: Shim, outrider: Run, capsys: Capture, status: int, code: int) -> None:
    shim.refuses = (status, "Memory is being moved already")
    assert outrider("migrate", "plan", "Memory", "--to", "pc2") == code
    assert "Memory is being moved already\n  `outrider migrate list` shows it" in capsys.readouterr().err


def test_a_host_whose_token_may_not_is_told_where_it_can_be_done(shim: Shim, outrider: Run, capsys: Capture) -> None:
    shim.refuses = (403, "the token may not write outrider/migrations/m1/spec")
    assert outrider("migrate", "run", "Memory", "--to", "pc2", "--json") == 1
    assert "shims of Consul's servers" in json.loads(capsys.readouterr().err)["hint"]


@pytest.mark.parametrize(
    "words", [("plan",), ("run", "--from", "pc1"), ("plan", "A", "--canary", "1"), ("plan", "A", "--verify-s", "0")]
)
def test_a_question_without_sense_is_wrong_usage(shim: Shim, outrider: Run, words: tuple[str, ...]) -> None:
    assert outrider("migrate", *words) == 2
    assert shim.asked == []


def test_the_list_names_state_and_what_is_waited_for(shim: Shim, outrider: Run, capsys: Capture) -> None:
    shim.reports = [report_of(journal(START), 1002.0, Wait("1 more must approve (`outrider x`)", person=True))]
    assert outrider("migrate", "list") == 0
    shown = capsys.readouterr().out
    assert "running: prepare" in shown
    assert "outrider x" not in shown
    shim.reports = [report_of(journal(START, OVER, VERIFY, GO), 1010.0)]
    assert outrider("migrate", "list", "--active") == 0
    assert "no migration is under way" in capsys.readouterr().out


def test_the_whole_journal_is_shown_with_its_evidence(shim: Shim, outrider: Run, capsys: Capture) -> None:
    shim.reports = [report_of(journal(START, OVER, VERIFY, GO), 1010.0)]
    assert outrider("migrate", "show", "m1") == 0
    shown = capsys.readouterr().out
    assert "asked for by ann at" in shown
    assert "n: 369" in shown
    assert "pc1  cutover: hand over  1.000 s" in shown
    assert outrider("migrate", "show", "m1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finalised"


def test_the_live_view_says_what_is_waited_for_and_since_when() -> None:
    waits = Wait("continue: errors 1/50 bad, 0.40% is tolerated, E=2")
    shown = "\n".join(lines_of(report_of(journal(START, OVER, VERIFY), 1015.0, waits)))
    assert "  cutover  hand over  1.00 s   Memory-2 holds the lease, epoch 7" in shown
    assert "  verify   verify     12.00 s  now" in shown
    assert "waits, for 12.0 s: continue: errors 1/50 bad" in shown
    assert "a verdict comes within 18 s, or a person decides" in shown
    assert "next: outrider migrate rollback m1" in shown


def test_what_people_say_in_between_is_not_the_end_of_a_step() -> None:
    paused = journal(START, ("paused", {}), ("resumed", {}), OVER)
    assert "  prepare  start      3.00 s  warm" in lines_of(report_of(paused, 1005.0))


def test_where_nobody_knows_what_is_waited_for_the_driver_is_named() -> None:
    assert "pc1 drives it, and knows" in "\n".join(lines_of(report_of(journal(START), 1005.0)))
    assert "no shim has begun a step" in "\n".join(lines_of(report_of(journal(), 1005.0)))


def test_of_several_those_that_want_a_person_come_first_and_the_screen_is_not_left() -> None:
    well = report_of(journal(START), 1005.0)
    reports = [replace(well, id=f"w{number}") for number in range(20)]
    reports += [replace(report_of(journal(START, WORSE, HELD), 1005.0), id="h1")]
    shown = screen(reports, 10, "no leader")
    assert len(shown) == 10
    assert "no answer: no leader" in shown[1]
    assert "h1" in shown[2]
    assert shown[-1] == "and 14 more"
