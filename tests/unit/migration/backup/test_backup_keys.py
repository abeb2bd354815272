"""What is put back into Consul, beside what is there."""

from __future__ import annotations

import msgspec
import pytest

from outrider.errors import BackupError
from outrider.migration.backup.keys import key_of
from outrider.migration.backup.restoring import plan_keys
from outrider.registry.layout import PLACEMENT, Handover, Placed, PlacementDoc

PLAIN = PlacementDoc("A", (Placed("A-1", "h1", "v1"), Placed("A-2", "h2", "v1")), "why", 7.0)
MOVING = PlacementDoc(
    "A",
    (Placed("A-1", "h1", "v1", reserve=True), Placed("A-2", "h2", "v1", weight=0.0)),
    "why",
    7.0,
    Handover("A-2", "h2", 5),
    "m1",
    "held",
    "key",
)


def test_a_placement_comes_back_without_the_marks_of_a_migration_that_was_under_way() -> None:
    plan = plan_keys([key_of(PLACEMENT + "A", msgspec.json.encode(MOVING))], {})
    (change,) = plan.changes
    assert msgspec.json.decode(msgspec.json.encode(change.doc), type=PlacementDoc) == PLAIN


def test_what_a_migration_is_moving_is_not_written_over() -> None:
    current = {PLACEMENT + "A": (msgspec.json.encode(MOVING), 9)}
    with pytest.raises(BackupError, match="changed by migration m1"):
        plan_keys([key_of(PLACEMENT + "A", msgspec.json.encode(PLAIN))], current)


def test_what_is_so_already_is_no_change() -> None:
    content = msgspec.json.format(msgspec.json.encode(PLAIN), indent=1)
    assert plan_keys([key_of(PLACEMENT + "A", content)], {PLACEMENT + "A": (content, 9)}).changes == ()
