"""One lab for the tests of this folder, with the reference fleet on it; each test leaves it well, the last ends it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.fleet import Fleet, Played
from hosts.lab.lab import Lab
from hosts.scenarios import Scenarios


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it needs root and real hosts. The fleet takes CPU, so it comes later, and Molecule, two at once, last."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.root)
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="systemd-nspawn needs root"))
    if here:
        first = items.index(here[0])
        items[first : first + len(here)] = sorted(
            here, key=lambda item: (_uses("scenario", item), _uses("fleet", item))
        )


def _uses(fixture: str, item: pytest.Item) -> bool:
    return fixture in getattr(item, "fixturenames", ())


@pytest.fixture(scope="package")
def scenarios(request: pytest.FixtureRequest) -> Iterator[Scenarios]:
    """Molecule's, as far as they were asked for."""
    items = request.session.items
    made = Scenarios([item.callspec.params["scenario"] for item in items if _uses("scenario", item)])  # type: ignore[attr-defined]
    yield made
    made.end()


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
