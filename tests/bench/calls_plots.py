"""The plots of bench-calls, into docs/images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calls_load import Made
from matplotlib import pyplot
from plots import save

BIN_S = 0.1
Span = tuple[float, float]


def fault(name: str, runs: Mapping[str, tuple[Sequence[Made], Span]], after_s: float) -> None:
    """Calls by instance, and failed ones, around one fault; one panel for each kind of method."""
    figure, panels = pyplot.subplots(len(runs), 1, figsize=(7, 4.5), sharex=True)
    for panel, (system, (made, (began, ended))) in zip(panels, runs.items(), strict=True):
        bins = [began + BIN_S * number for number in range(-10, round((ended - began + after_s) / BIN_S))]
        for instance in sorted({call.instance for call in made if call.instance}):
            _line(panel, bins, began, made, instance, lambda c, i=instance: c.instance == i and not c.error)
        _line(panel, bins, began, made, "failed", lambda c: bool(c.error), color="black", linestyle=":")
        panel.axvspan(0, ended - began, color="0.92", zorder=0)
        panel.set_title("a method that may be repeated" if system == "outrider" else "one that may not", fontsize=9)
        panel.set_ylabel(f"calls per {BIN_S * 1000:.0f} ms")
        panel.set_ylim(bottom=0)
    panels[0].legend(ncols=4, fontsize=8, loc="upper right")
    panels[-1].set_xlabel(f"seconds since Bench-1 is {name} (shaded: as long as it is)")
    save(figure, f"breaker-{name}")


def storm(series: Mapping[str, Sequence[Made]], capacity: float, deadline_s: float, seconds: float) -> None:
    """Answers within the deadline over time."""
    figure, panel = pyplot.subplots(figsize=(7, 3))
    for name, made in series.items():
        counted = Counter(int(call.ended / 0.25) for call in made if not call.error)
        steps = range(round(seconds / 0.25))
        panel.plot([step * 0.25 for step in steps], [counted[step] * 4 for step in steps], label=name, linewidth=1.2)
    panel.axhline(capacity, color="0.6", linestyle="--", linewidth=0.8, label="capacity")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("seconds")
    panel.set_ylabel(f"answers/s within {deadline_s * 1000:.0f} ms")
    panel.legend(fontsize=8)
    save(figure, "retry-storm")


def _line(
    panel: Any,
    bins: Sequence[float],
    began: float,
    made: Sequence[Made],
    label: str,
    wanted: Callable[[Made], bool],
    **style: Any,
) -> None:
    counted = Counter(int((call.ended - bins[0]) // BIN_S) for call in made if wanted(call))
    times = [start - began for start in bins]
    panel.plot(
        times, [counted[n] for n in range(len(bins))], label=label, linewidth=1.2, drawstyle="steps-post", **style
    )
