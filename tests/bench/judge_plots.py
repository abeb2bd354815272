"""The plot of bench-judge, into docs/images: how often each rule is wrong, and how soon it sees what is bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import Row
from matplotlib import pyplot
from plots import save

FALSE, TOOK = "false rollback, ", "seconds to rollback, "
WIDTH = 0.25  # of a bar


def draw(rows: Sequence[Row], seconds: int) -> None:
    """`rows` of bench-judge; a run that was not rolled back stands at `seconds`."""
    figure, (wrong, soon) = pyplot.subplots(1, 2, figsize=(9, 3.4), width_ratios=(1, 2))
    systems = list(dict.fromkeys(each.system for each in rows))
    for number, system in enumerate(systems):
        shift = (number - (len(systems) - 1) / 2) * WIDTH
        false = [each for each in rows if each.system == system and each.case.startswith(FALSE)]
        places = [place + shift for place in range(len(false))]
        bars = wrong.bar(places, [100 * each.p50 for each in false], WIDTH, label=system)
        wrong.bar_label(bars, fmt="%g", fontsize=7)
        took = [each for each in rows if each.system == system and each.case.startswith(TOOK)]
        places = [place + shift for place in range(len(took))]
        upwards = [[0.0] * len(took), [each.p99 - each.p50 for each in took]]
        soon.errorbar(places, [each.p50 for each in took], upwards, fmt="o", markersize=4, capsize=2, label=system)
    _name(wrong, rows, systems[0], FALSE)
    _name(soon, rows, systems[0], TOOK)
    wrong.set_ylabel("healthy migrations rolled back, %")
    soon.set_ylabel("seconds to a rollback: median to p99")
    soon.set_yscale("log")
    soon.axhline(seconds, color="0.6", linestyle="--", linewidth=0.8)
    soon.legend(fontsize=8)
    save(figure, "judge")


def _name(panel: Any, rows: Sequence[Row], system: str, prefix: str) -> None:
    names = [each.case.removeprefix(prefix) for each in rows if each.system == system and each.case.startswith(prefix)]
    panel.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=8)
