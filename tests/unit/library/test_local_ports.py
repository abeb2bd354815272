"""Ports are chosen once, a taken one gives way to a free one, and its owner is named."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

from unit.library.as_ansible import load

LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def local_ports() -> ModuleType:
    return load("local_ports")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def test_a_free_port_is_taken_as_wanted(local_ports: ModuleType, free: int) -> None:
    assert local_ports.choose({"http": free}, {}, LOOPBACK, None) == ({"http": free}, [])


def test_a_taken_port_gives_way_and_its_owner_is_named(local_ports: ModuleType, taken: int) -> None:
    chosen, moved = local_ports.choose({"http": taken}, {}, LOOPBACK, None)
    assert 10000 <= chosen["http"] < 32768
    assert f"port {taken} is taken by" in moved[0]
    assert f"(pid {os.getpid()}); {chosen['http']} is used instead" in moved[0]


def test_a_port_taken_for_udp_gives_way(local_ports: ModuleType) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        port = server.getsockname()[1]
        assert local_ports.choose({"dns": port}, {}, LOOPBACK, None)[0]["dns"] != port


def test_the_kept_choice_stays_while_it_is_free(local_ports: ModuleType, free: int) -> None:
    assert local_ports.choose({"http": 1}, {"http": free}, LOOPBACK, None) == ({"http": free}, [])


def test_the_kept_choice_stays_while_our_own_process_has_it(
    local_ports: ModuleType, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_ports, "is_mine", lambda port, folder: (port, folder) == (taken, "/here"))
    assert local_ports.choose({"http": 1}, {"http": taken}, LOOPBACK, "/here")[0] == {"http": taken}


def test_the_kept_choice_gives_way_to_a_foreign_process(local_ports: ModuleType, taken: int, free: int) -> None:
    assert local_ports.choose({"http": free}, {"http": taken}, LOOPBACK, "/not-in-any-environment")[0] == {"http": free}


def test_two_names_never_get_one_port(local_ports: ModuleType, taken: int) -> None:
    chosen, _ = local_ports.choose({"a": taken, "b": taken}, {"c": taken}, LOOPBACK, None)
    assert len(set(chosen.values())) == 2
