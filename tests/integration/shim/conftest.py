"""What is migrated on one host, and a caller of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from integration.shim.migrating import Fleet
from outrider.calls.client import Client

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost


@pytest.fixture
def fleet(host: ShimHost) -> Fleet:
    return Fleet(host)


@pytest.fixture
def call(fleet: Fleet) -> Callable[..., Any]:
    client = Client(runtime=fleet.host.folder / "runtime", caller="test")
    return lambda method, arguments=None: client.call("Ledger", method, arguments, timeout=5.0)
