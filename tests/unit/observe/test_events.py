"""Changes are told once, with their reason and how long it was otherwise; and kept on a disk that may fill up."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from full_disk import full_disk
from outrider.observe.events import Event, Seen, Teller
from outrider.observe.store import EventStore

MEMORY = Seen("Memory", "Memory-1", "pc1", "passing", "holder", 5, "ok")
ECHO = Seen("Echo", "Echo-1", "pc1", "passing", "replica", 0, "ok")


def told(events: list[Event]) -> list[tuple[str, str, float]]:
    return [(event.what, event.instance, event.lasted_s) for event in events]


def test_the_first_picture_tells_nothing_and_neither_does_the_same_again() -> None:
    teller = Teller()
    assert teller.look([MEMORY, ECHO], 1.0) == []
    assert teller.look([MEMORY, ECHO], 2.0) == []


def test_a_change_is_told_with_its_reason_and_how_long_it_was_otherwise() -> None:
    teller = Teller()
    teller.look([ECHO], 1.0)
    died = replace(ECHO, status="critical", detail="exited: killed by SIGKILL")
    (event,) = teller.look([died], 10.0)
    assert (event.what, event.why, event.host, event.at) == ("critical", "exited: killed by SIGKILL", "pc1", 10.0)
    assert event.lasted_s == 0.0  # since when it had been passing, nobody here knows
    assert told(teller.look([ECHO], 12.5)) == [("passing", "Echo-1", 2.5)]


def test_a_lease_that_moves_is_told_for_both() -> None:
    teller = Teller()
    standby = Seen("Memory", "Memory-2", "pc2", "passing", "standby")
    teller.look([MEMORY, standby], 1.0)
    moved = [replace(MEMORY, role="standby", epoch=0), replace(standby, role="holder", epoch=6)]
    events = teller.look(moved, 2.0)
    assert [(e.what, e.instance, e.epoch) for e in events] == [("standby", "Memory-1", 0), ("holder", "Memory-2", 6)]


def test_what_comes_goes_and_moves_is_told() -> None:
    teller = Teller()
    teller.look([ECHO], 1.0)
    there = replace(ECHO, host="pc2")
    assert told(teller.look([ECHO, there], 2.0)) == [("placed", "Echo-1", 0.0)]
    (gone,) = teller.look([there], 3.0)
    assert (gone.what, gone.host) == ("removed", "pc1")


def test_events_survive_a_restart_in_bounded_files(tmp_path: Path) -> None:
    store = EventStore(tmp_path, file_bytes=2000, kept=1000)
    for number in range(100):
        store.add([Event(float(number), "critical", "Echo", "Echo-1", "pc1", "because")])
    store.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 2000
    again = EventStore(tmp_path)
    assert again.recent[-1] == store.recent[-1]
    assert len(again.recent) > 20
    again.close()


def test_a_line_that_was_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.add([Event(1.0, "critical"), Event(2.0, "passing")])
    store.close()
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    again = EventStore(tmp_path)
    assert [event.at for event in again.recent] == [1.0]
    again.close()


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    with full_disk(100):
        store = EventStore(tmp_path)
        store.add([Event(float(number), "critical", why="x" * 50) for number in range(10)])
        store.close()
    assert len(store.recent) == 10
