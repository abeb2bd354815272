"""Plots of benchmarks, into docs/images. matplotlib is one of the benchmarks' own packages."""

from __future__ import annotations

from typing import Any

from harness import ROOT
from matplotlib import pyplot, rcParams

pyplot.switch_backend("svg")
# Text as text: small files that can be searched.  The salt: the same figures give the same file.
rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "outrider", "font.size": 9})


def save(figure: Any, name: str) -> None:
    """As docs/images/NAME.svg."""
    path = ROOT / f"docs/images/{name}.svg"
    path.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    # matplotlib leaves blanks at the ends of lines.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
