"""Probes by ZeroMQ and by commands: answered, failing, hanging, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from integration.host.probing import check, target
from outrider.fleet.spec import Probe
from outrider.host.probes import prober_of
from outrider.host.processes import environment_of


async def test_zmq_is_answered_then_hangs_then_is_answered_again() -> None:
    context = zmq.asyncio.Context()
    server = context.socket(zmq.REP)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    prober = prober_of(Probe(type="zmq", timeout_s=0.3, request='{"ask": 1}'), target(port))
    try:
        asking = asyncio.ensure_future(prober.check())
        assert await server.recv() == b'{"ask": 1}'
        await server.send(b"fine")
        assert (await asking).ok
        hung = await prober.check()
        assert hung.detail == f"request to tcp://127.0.0.1:{port}: no answer within 0.3 s"
        await server.recv()  # the question nobody waits for any more
        await server.send(b"late")
        asking = asyncio.ensure_future(prober.check())
        await server.recv()
        await server.send(b"fine")
        assert (await asking).ok
    finally:
        prober.close()
        server.close(linger=0)
        context.term()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("pass", ""),
        ("print('it is broken'); raise SystemExit(3)", "exit status 3 (it is broken)"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("print('x' * 10_000_000); raise SystemExit(1)", f"exit status 1 ({'x' * 200})"),
    ],
)
async def test_command(code: str, said: str) -> None:
    result = await check(Probe(type="command", command=(sys.executable, "-c", code), timeout_s=1), 0)
    assert result.ok == (said == "")
    assert result.detail.endswith(said)


async def test_command_gets_the_port_and_leaves_nothing_behind(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    start = "subprocess.Popen(['sleep', '300'])"
    code = f"import subprocess, sys; print({start}.pid, sys.argv[1:], file=open(sys.argv[1], 'w'))"
    command = (sys.executable, "-c", code, str(note), "{port}", "{address}", "{other}")
    assert (await check(Probe(type="command", command=command, timeout_s=5), 1234)).ok
    pid, _, arguments = await asyncio.to_thread(lambda: note.read_text().partition(" "))
    assert "'1234', '127.0.0.1', '{other}'" in arguments
    async with asyncio.timeout(5):
        while environment_of(int(pid)):
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)


async def test_command_that_is_not_there() -> None:
    result = await check(Probe(type="command", command=("/no/such/check",)), 0)
    assert result.detail == "/no/such/check: No such file or directory"
