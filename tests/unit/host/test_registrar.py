"""When a registration must be written again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from outrider.host.registrar import same_definition
from outrider.registry.services import Service

ECHO = Service("Echo-1", "Echo", "10.0.0.1", 7200, ("outrider", "replica"), {"agent": "Echo", "version": "v1"})


@pytest.mark.parametrize(
    "change",
    [{"tags": ("replica", "outrider")}, {"status": "critical", "output": "exited: killed"}, {"check_id": ""}],
)
def test_order_of_tags_and_status_are_no_other_definition(change: dict[str, object]) -> None:
    assert same_definition(ECHO, replace(ECHO, **change))


@pytest.mark.parametrize(
    "change",
    [{"name": "echo"}, {"address": "10.0.0.2"}, {"port": 7201}, {"tags": ("outrider",)}, {"meta": {"version": "v2"}}],
)
def test_whatever_a_caller_reads_is_another_definition(change: dict[str, object]) -> None:
    assert not same_definition(ECHO, replace(ECHO, **change))
