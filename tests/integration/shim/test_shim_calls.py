"""The shim hears of the calls of its host's processes, and of nobody else's."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest

from outrider.calls.reports import ProcessReport, reports_socket
from outrider.daemon.call_listener import CallListener, trusted_users


def send(runtime: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, str(reports_socket(runtime)))


async def test_reports_are_taken_with_the_sender_the_kernel_names(tmp_path: Path) -> None:
    taken: asyncio.Queue[ProcessReport] = asyncio.Queue()
    listener = CallListener(tmp_path, taken.put_nowait, trusted_users(list))
    send(tmp_path, b"noise")
    send(tmp_path, msgspec.msgpack.encode(ProcessReport("Asker-1", 1, (), (), ())))
    report = await asyncio.wait_for(taken.get(), 5)
    assert (report.caller, report.pid) == ("Asker-1", os.getpid())
    listener.close()
    assert not reports_socket(tmp_path).exists()


async def test_reports_of_other_users_are_not_taken(tmp_path: Path) -> None:
    taken: asyncio.Queue[ProcessReport] = asyncio.Queue()
    answers = iter((False, True))
    listener = CallListener(tmp_path, taken.put_nowait, lambda user: next(answers))
    for caller in ("first", "second"):
        send(tmp_path, msgspec.msgpack.encode(ProcessReport(caller, 1, (), (), ())))
    assert (await asyncio.wait_for(taken.get(), 5)).caller == "second"
    listener.close()


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_root_and_the_shims_own_user_are_trusted(uid: int) -> None:
    assert trusted_users(list)(uid)


def test_users_of_the_hosts_own_processes_are_trusted() -> None:
    assert not trusted_users(list)(54321)
    assert trusted_users(lambda: [os.getpid()])(os.getuid())
