"""One lab with the small fleet for all tests of this folder. They need root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.small import small_fleet
from hosts.fleet import Fleet

# These take minutes: `make faults-migration` asks for them.
collect_ignore = [] if "OUTRIDER_FAULTS" in os.environ else ["test_migration_faults.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and real hosts."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="systemd-nspawn needs root"))


@pytest.fixture(scope="package")
def small() -> Iterator[Fleet]:
    """The small fleet, as `site.yml` makes it; gone before another folder's tests make hosts of their own.

    Where $OUTRIDER_LAB names a lab, it is made there, and the lab is left up.
    """
    with small_fleet(os.environ.get("OUTRIDER_LAB", "")) as fleet:
        yield fleet
