"""What systemd hears of the shim, on a socket that stands for systemd's."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.daemon.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


async def heard(systemd: socket.socket) -> str:
    async with asyncio.timeout(5):
        return (await asyncio.get_running_loop().sock_recv(systemd, 100)).decode()


def environment(systemd: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": systemd.getsockname(), **more}


async def test_ready_beats_and_stopping_are_heard_in_order(systemd: socket.socket) -> None:
    environ = environment(systemd, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid()))
    notifier = Notifier(environ)
    assert notifier.interval_s == 0.004
    assert environ == {}  # what we start would speak to systemd in our name
    notifier.ready()
    assert [await heard(systemd) for _ in range(3)] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    notifier.stopping()
    while (message := await heard(systemd)) != "STOPPING=1":
        assert message == "WATCHDOG=1"
    assert await heard(systemd) == "WATCHDOG=1"  # stopping may hang too
    notifier.close()


async def test_a_loop_that_hangs_is_not_heard(systemd: socket.socket) -> None:
    notifier = Notifier(environment(systemd, WATCHDOG_USEC="20000"))
    notifier.ready()
    assert [await heard(systemd) for _ in range(2)] == ["READY=1", "WATCHDOG=1"]
    time.sleep(0.1)  # noqa: ASYNC251 - the hang itself
    with pytest.raises(BlockingIOError):
        systemd.recv(100)
    notifier.close()


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}])
async def test_without_a_watchdog_of_ours_there_is_no_beat(systemd: socket.socket, more: dict[str, str]) -> None:
    notifier = Notifier(environment(systemd, **more))
    notifier.ready()
    assert notifier.interval_s == 0
    assert await heard(systemd) == "READY=1"
    await asyncio.sleep(0.05)
    with pytest.raises(BlockingIOError):
        systemd.recv(100)


async def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0outrider-test-{os.getpid()}")
        sock.setblocking(False)
        Notifier({"NOTIFY_SOCKET": f"@outrider-test-{os.getpid()}"}).ready()
        assert await heard(sock) == "READY=1"


async def test_nobody_who_listens_is_no_error(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.stopping()
        notifier.close()
