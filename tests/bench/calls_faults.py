"""One of three instances fails, then hangs, then is slow: what callers notice, and how soon it is called again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import calls_plots as plots
from calls_instance import Started
from calls_load import Load, Made
from calls_ours import AGENT, publish
from harness import Row, row

from outrider.calls import Client

FAULTS = ("failing", "hanging", "slow")
RATE = 500.0
THREADS = 48
TIMEOUT_S = 0.5
BEFORE_S, RECOVER_S = 3.0, 3.0
SETTLED_S = 1.0  # what is to be well by then
WINDOW_S = 0.1  # over which an instance's share is counted
METHODS = {"outrider": "read", "outrider, not idempotent": "write"}

Spans = dict[str, tuple[float, float]]


def breaker(fault_s: float, *, draw: bool) -> list[Row]:
    """Each fault, with a method that may be repeated and with one that may not."""
    runs = {system: _run(method, fault_s) for system, method in METHODS.items()}
    rows = []
    for fault in FAULTS:
        for system, (made, spans, ill) in runs.items():
            rows += _rows(f"breaker: {fault}", system, made, spans[fault], ill)
        if draw:
            plots.fault(fault, {s: (made, spans[fault]) for s, (made, spans, _) in runs.items()}, RECOVER_S)
    return rows


def _run(method: str, fault_s: float) -> tuple[Sequence[Made], Spans, str]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runtime = Path(folder) / "run"
        instances = [Started(runtime, f"{AGENT}-{number}") for number in (1, 2, 3)]
        for instance in instances:
            stack.callback(instance.end)
        publish(runtime, [instance.listed() for instance in instances]).close()
        client = Client(runtime=runtime, caller="caller")
        load = Load(lambda: client.call(AGENT, method, timeout=TIMEOUT_S), RATE, THREADS)
        time.sleep(BEFORE_S)
        spans: Spans = {}
        for fault in FAULTS:
            began = load.now()
            instances[0].fare(fault)
            time.sleep(fault_s)
            spans[fault] = began, load.now()
            instances[0].fare("well")
            time.sleep(RECOVER_S)
        return load.stop(), spans, instances[0].name


def _rows(case: str, system: str, made: Sequence[Made], span: tuple[float, float], ill: str) -> list[Row]:
    began, ended = span
    during = [call for call in made if began <= call.due < ended]
    settled = [call for call in during if call.due >= began + SETTLED_S]
    failed = [call for call in settled if call.error]
    return [
        row(f"{case}: calls after the first second", system, "count", [len(settled)]),
        row(f"{case}: share of them that failed", system, "ratio", [len(failed) / max(1, len(settled))]),
        row(f"{case}: calls that failed before", system, "count", [sum(bool(c.error) for c in during) - len(failed)]),
        row(f"{case}: answered calls", system, "ms", [(c.ended - c.due) * 1000 for c in during if not c.error]),
        row(f"{case}: recovery", system, "s", [recovery(made, ended, ill)]),
    ]


def recovery(made: Sequence[Made], well: float, ill: str) -> float:
    """Seconds from `well` until the instance answers half of its fair share; RECOVER_S if it never does."""
    fair = RATE * WINDOW_S / 3
    answered = sorted(call.ended for call in made if call.instance == ill and not call.error and call.ended > well)
    for first, ended in zip(answered, answered[int(fair / 2) :], strict=False):
        if ended - first <= WINDOW_S:
            return min(ended - well, RECOVER_S)
    return RECOVER_S
