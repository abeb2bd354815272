"""The environment of an agent, and the bounded computation."""

import pytest

from settings import Settings, SettingsError
from wire import Refused
from work import MAX_N, primes_below, work


def test_the_environment_is_read() -> None:
    settings = Settings(
        {"OUTRIDER_AGENT": "A", "OUTRIDER_PORT": "7200", "OUTRIDER_PORT_HEALTH": "8200", "OUTRIDER_NEEDS": "B, C,"}
    )
    assert settings.ports == {"main": 7200, "health": 8200}
    assert settings.needs == ("B", "C")
    assert (settings.address, settings.instance, settings.model) == ("127.0.0.1", "A-1", "")


def test_one_port_may_serve_both() -> None:
    assert Settings({"OUTRIDER_PORT": "7200", "OUTRIDER_PORT_HEALTH": "7200"}).ports == {"main": 7200}
    assert Settings({"OUTRIDER_PORT": "0", "OUTRIDER_PORT_HEALTH": "0"}).ports == {"main": 0, "health": 0}


@pytest.mark.parametrize("port", ["x", "-1", "65536", "1.5", "²"])
def test_a_wrong_port_is_named(port: str) -> None:
    with pytest.raises(SettingsError, match="OUTRIDER_PORT"):
        Settings({"OUTRIDER_PORT": port})


def test_no_port_is_an_error() -> None:
    with pytest.raises(SettingsError, match="nothing to serve"):
        Settings({})


@pytest.mark.parametrize(("n", "count"), [(0, 0), (2, 0), (3, 1), (10, 4), (100, 25), (1000, 168), (1_000_000, 78498)])
def test_primes_are_counted(n: int, count: int) -> None:
    assert primes_below(n) == count


@pytest.mark.parametrize("n", [-1, MAX_N + 1, 1.5, "10", True, None, [1]])
def test_work_is_bounded(n: object) -> None:
    with pytest.raises(Refused):
        work({"n": n})
