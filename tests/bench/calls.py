"""Calls between agents measured: round trips beside what people use today, and calls when something is ill."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from calls_faults import breaker
from calls_stopped import shim_stopped
from calls_storm import storm
from calls_trips import across_hosts, same_host, verdict
from harness import Row, write


def main() -> int:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples and short windows")
    parser.add_argument("--only", default="same,across,breaker,storm,stopped", help="cases, with commas between")
    args = parser.parse_args()
    rounds, calls = (2, 200) if args.quick else (5, 800)
    cases: dict[str, Callable[[], list[Row]]] = {
        "same": lambda: same_host(rounds, calls),
        "across": lambda: across_hosts(rounds, calls),
        "breaker": lambda: breaker(2.0 if args.quick else 5.0, draw=not args.quick),
        "storm": lambda: storm(2.0 if args.quick else 6.0, draw=not args.quick),
        "stopped": lambda: shim_stopped(4.0 if args.quick else 24.0),
    }
    rows = [found for name in args.only.split(",") for found in cases[name]()]
    write("calls", rows)
    print("\n".join(verdict(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
