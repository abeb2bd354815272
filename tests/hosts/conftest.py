"""One lab for the tests of this folder, with the reference fleet on it; each test leaves it well, the last ends it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.fleet import Fleet, Played
from hosts.lab.lab import Lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it needs root and real hosts. Who makes hosts of their own comes first, before the fleet takes CPU."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.root)
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="systemd-nspawn needs root"))
    if here:
        first = items.index(here[0])
        items[first : first + len(here)] = sorted(here, key=lambda item: "fleet" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """Four untouched hosts; or, so that what failed can be looked at, those that $OUTRIDER_LAB names and leaves up."""
    if given := os.environ.get("OUTRIDER_LAB"):
        yield Lab(Path(given))
        return
    # Short, because ssh's sockets are in it.
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        lab = Lab(Path(folder) / "lab")
        os.environ["OUTRIDER_LAB"] = str(lab.folder)
        try:
            lab.up(4)
            yield lab
        finally:
            lab.down()
            os.environ.pop("OUTRIDER_LAB")


@pytest.fixture(scope="package")
def fleet(lab: Lab) -> Fleet:
    """The reference fleet on the lab, as `site.yml` makes it."""
    fleet = Fleet(lab)
    fleet.first = fleet.play("site.yml")
    assert fleet.first.status == 0, fleet.first.output
    return fleet


@pytest.fixture(scope="package")
def again(fleet: Fleet) -> Played:
    """`site.yml` on a fleet that is as it says, telling all it can."""
    return fleet.play("site.yml", "-vvv", "--diff")
