"""Choosing ports while others hold some."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from outrider.errors import HostError
from outrider.host.ports import Moved, PortChoice, choose_ports, ephemeral_range, free_port, is_free, owner_of

HOME = "127.0.0.1"
LISTEN = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print('up', flush=True); input()"
)


@pytest.fixture
def port() -> int:
    return free_port(HOME)


@pytest.fixture
def other(port: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that listens on `port`."""
    command = [sys.executable, "-c", LISTEN, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process
    process.communicate("\n")


def test_a_taken_port_is_named_with_its_owner(port: int, other: subprocess.Popen[str]) -> None:
    assert not is_free(HOME, port)
    assert owner_of(port).startswith(f"pid {other.pid} (python")
    with pytest.raises(HostError) as caught:
        choose_ports({"main": port}, HOME, may_move=False)
    assert caught.value.message == f"port {port} (main) is taken by {owner_of(port)}"
    assert "fleet file" in caught.value.hint


def test_a_taken_port_moves_if_it_may(port: int, other: subprocess.Popen[str]) -> None:
    choice = choose_ports({"main": port, "health": "auto"}, HOME, may_move=True)
    chosen = choice.ports["main"]
    assert chosen not in (port, choice.ports["health"])
    assert choice.moved == (Moved("main", port, owner_of(port), chosen),)
    again = choose_ports({"main": port, "health": "auto"}, HOME, may_move=True, keep=choice.ports)
    assert again.ports == choice.ports


def test_a_moved_port_goes_home_when_that_is_free(port: int) -> None:
    elsewhere = free_port(HOME, avoid={port})
    assert choose_ports({"main": port}, HOME, may_move=True, keep={"main": elsewhere}) == PortChoice({"main": port})


def test_auto_ports_stay(port: int) -> None:
    assert choose_ports({"main": "auto"}, HOME, may_move=False, keep={"main": port}).ports == {"main": port}
    assert choose_ports({"main": "auto"}, HOME, may_move=False, keep={"main": port}, avoid={port}).ports != {
        "main": port
    }


def test_one_instance_never_gets_a_port_twice() -> None:
    names = {f"p{n}": "auto" for n in range(50)}
    ports = choose_ports(names, HOME, may_move=False).ports
    assert len(set(ports.values())) == 50


def test_auto_does_not_take_what_the_same_agent_declares(port: int) -> None:
    choice = choose_ports({"a": "auto", "main": port}, HOME, may_move=False, keep={"a": port})
    assert choice.ports["main"] == port
    assert choice.ports["a"] != port


def test_ports_of_outgoing_connections_are_not_chosen() -> None:
    rng = random.Random(1)
    assert not any(free_port(HOME, rng=rng) in ephemeral_range() for _ in range(200))


def test_a_connection_in_time_wait_does_not_make_a_port_taken(port: int) -> None:
    with socket.create_server((HOME, port)) as server, socket.create_connection((HOME, port)) as client:
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        client.recv(1)
    assert is_free(HOME, port)


def test_a_listener_on_all_addresses_takes_it(port: int) -> None:
    with socket.create_server(("0.0.0.0", port)):
        assert not is_free(HOME, port)
    assert is_free(HOME, port)


def test_an_address_of_another_machine_is_an_error(port: int) -> None:
    with pytest.raises(HostError, match=r"192\.0\.2\.1"):
        is_free("192.0.2.1", port)


def test_a_port_without_owner_is_unknown(port: int) -> None:
    assert owner_of(port) == "unknown process"
