"""How answers look: tables for people, JSON for programs, one line of progress on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

# rich costs 100 ms of imports, which a command that prints no table does not pay.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

COLOURS = {"passing": "green", "warning": "yellow", "starting": "yellow", "stopped": "dim"}
PIPE_COLUMNS = 120


def console() -> Console:
    """Standard output. A pipe gets whole lines: 120 columns, or as many as $COLUMNS says."""
    import os

    from rich.console import Console

    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if fixed else PIPE_COLUMNS, highlight=False, soft_wrap=False)


def print_json(value: Any, *, lines: bool = False) -> None:
    """`value` on standard output, indented, or as one line of several."""
    import msgspec

    encoded = msgspec.json.encode(value)
    print((encoded if lines else msgspec.json.format(encoded)).decode(), flush=lines)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, wrap: Sequence[str] = ("detail",)) -> Table:
    """A plain table: no frame, headings in capitals. `wrap`: columns that may take several lines."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column.upper(), no_wrap=column not in wrap, overflow="fold" if column in wrap else "ellipsis")
    for row in rows:
        made.add_row(*(_text(cell) for cell in row))
    return made


def _text(cell: str | Text) -> Text:
    """A string as it is: rich would take square brackets in it for markup."""
    from rich.text import Text

    return Text(cell) if isinstance(cell, str) else cell


def status_text(status: str) -> Text:
    """A status in its colour."""
    from rich.text import Text

    return Text(status, style=COLOURS.get(status, "bold red"))


def ago(since: float) -> str:
    """Time since `since`, Unix seconds: 12s, 5m, 3h, 2d."""
    if not since:
        return "-"
    seconds = max(0.0, time.time() - since)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def count(number: int, thing: str) -> str:
    """1 host, 2 hosts."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def clipped(rows: Sequence[Sequence[str | Text]], width: int, headings: Sequence[str]) -> list[list[str | Text]]:
    """`rows` with the last cell, a string, cut so that each fits into one line of `width` columns."""
    taken = 0
    for index, heading in enumerate(headings[:-1]):
        taken += max(len(heading), *(len(row[index]) for row in rows), 0) + 2
    room = max(width - taken, len(headings[-1]), 8)
    short = (str(row[-1]) for row in rows)
    cut = [text if len(text) <= room else text[: room - 3].rstrip(", ") + "..." for text in short]
    return [[*row[:-1], text] for row, text in zip(rows, cut, strict=True)]


class Progress:
    """One line of stderr that is written over. Nothing where stderr is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._on = sys.stderr.isatty() and not quiet
        self._shown = ""

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._on and text != self._shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            self._shown = text

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._shown = ""
