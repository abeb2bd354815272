"""What the observer makes of the files that singletons write."""

from __future__ import annotations

import json

from msgspec import to_builtins

from faults.observer import Accepted, records


def test_a_line_that_a_death_cut_off_hides_none_that_follows() -> None:
    first, second = Accepted("t1", 5, "A-1", 1), Accepted("t2", 6, "A-2", 2)
    lines = [json.dumps(to_builtins(record)) for record in (first, second)]
    assert records("\n".join(lines)) == [first, second]
    assert records(f"{lines[0][9:]}\n{lines[1]}") == [second]  # read from its middle on
    assert records(f"{lines[0][:38]}{lines[1]}\n") == [second]
    assert records(f"{lines[0]}\n{lines[1][:38]}") == [first]
