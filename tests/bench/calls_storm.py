"""Twice as many calls as a target can work on: with the library's retries, and with callers that try again at once.

What a refusal costs the target is taken from its work: that is how retries turn an overload into an outage.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import calls_plots as plots
from calls_instance import Started
from calls_load import Load, Made
from calls_ours import AGENT, publish
from harness import Row, row

from outrider.calls import Client, Settings
from outrider.errors import Overloaded

WORK_S = 0.003  # of processor time
CONCURRENCY, QUEUE = 2, 16
DEADLINE_S = 0.5
THREADS = 64
NAIVE = "callers that retry at once, no budget"


def storm(seconds: float, *, draw: bool) -> list[Row]:
    """Goodput beside the capacity, which is measured before, between and after."""
    runs: dict[str, tuple[list[Made], Client]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder) / "run"
        target = Started(runtime, f"{AGENT}-1", concurrency=CONCURRENCY, queue=QUEUE)
        try:
            publish(runtime, [target.listed()]).close()
            capacity = _capacity(Client(runtime=runtime, caller="caller"))
            for system, attempts, call in (("outrider", 3, _call), (NAIVE, 1, _call_until_answered)):
                client = Client(runtime=runtime, caller="caller", settings=Settings(attempts=attempts))
                load = Load(lambda c=client, f=call: f(c), 2 * capacity, THREADS)
                time.sleep(seconds)
                runs[system] = load.stop(), client
                # The machine's other work may have had a part of the first measurement.
                capacity = max(capacity, _capacity(Client(runtime=runtime, caller="caller")))
        finally:
            target.end()
    if draw:
        plots.storm({system: made for system, (made, _) in runs.items()}, capacity, DEADLINE_S, seconds)
    return [found for name, (made, client) in runs.items() for found in _rows(name, made, capacity, seconds, client)]


def _call(client: Client) -> str:
    name: str = client.call(AGENT, "burn", {"seconds": WORK_S}, timeout=DEADLINE_S)
    return name


def _call_until_answered(client: Client) -> str:
    """What a loop around a call does, where nobody counts the retries."""
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            left_s = max(0.001, until - time.monotonic())
            name: str = client.call(AGENT, "burn", {"seconds": WORK_S}, timeout=left_s)
            return name
        except Overloaded:
            if time.monotonic() >= until:
                raise


def _capacity(client: Client) -> float:
    """Answers a second to as many callers as half fill its queue: never idle, never full."""
    until = time.monotonic() + 2.0

    def work(_: int) -> int:
        count = 0
        while time.monotonic() < until:
            _call(client)
            count += 1
        return count

    callers = CONCURRENCY + QUEUE // 2
    with ThreadPoolExecutor(callers) as threads:
        return sum(threads.map(work, range(callers))) / 2.0


def _rows(system: str, made: list[Made], capacity: float, seconds: float, client: Client) -> list[Row]:
    answered = [call for call in made if not call.error and call.ended <= seconds]
    tallies = [tally for target in client.targets() for tally in target.tallies.values()]
    attempts = sum(tally.retries + sum(tally.outcomes.values()) for tally in tallies)
    goodput = len(answered) / seconds
    return [
        row("retry storm: goodput", system, "count", [goodput]),
        row("retry storm: goodput of the capacity", system, "ratio", [goodput / capacity]),
        row("retry storm: attempts for each call", system, "ratio", [attempts / max(1, len(made))]),
    ]
