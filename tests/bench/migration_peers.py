"""What people have today, beside ours at the same load: systemd's restart, Ansible's, and a switch without hold."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from failover_watch import PYTHON
from harness import Samples
from migration_lab import SLOT_NS, Seen, on_host

from hosts.fleet import Fleet, until

UNIT, PROGRAM, STATE = "peer-tally", "/root/peer-tally.py", "/root/peer-state"
ADDRESSES, PLAY = "/run/peer-addresses", "../tests/bench/migrants/rolling.yml"
ENDS, CALLER = ("lab1", "lab2"), "lab4"
SETTLE_S, AFTER_S = 1.0, 0.5
STATE_BYTES = 16_000_000
# It imports what our agents do, so it starts as soon as they do.
ANSWER = """
import asyncio, os
import outrider
file = os.open("/root/peer-state/accepted", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
class Line(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.rest = transport, b""
    def data_received(self, data):
        *lines, self.rest = (self.rest + data).split(b"\\n")
        for line in lines:
            os.write(file, line + b"\\n")
            self.transport.write(b"%d\\n" % os.getpid())
async def main():
    server = await asyncio.get_running_loop().create_server(Line, "0.0.0.0", 7410, backlog=1024)
    await server.serve_forever()
asyncio.run(main())
"""
# Whom it cannot connect to it passes over; what was sent is not sent again.
ASK = """
import asyncio, json, random, sys, threading, time
slot_ns, done, under_way = int(sys.argv[1]), threading.Event(), set()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
async def answer(number):
    addresses, problem = open(sys.argv[2]).read().split(), OSError("nobody")
    for address in random.sample(addresses, len(addresses)):
        try:
            reader, writer = await asyncio.open_connection(address, 7410)
        except OSError as error:
            problem = error
            continue
        try:
            writer.write(b"%d\\n" % number)
            if said := await reader.readline():
                return f"{address} {said.decode().strip()}"
            raise OSError("closed")
        finally:
            writer.close()
    raise problem
async def call(number):
    sent = time.time_ns()
    try:
        who, error = await asyncio.wait_for(answer(number), 5.0), ""
    except (OSError, TimeoutError) as problem:
        who, error = "", repr(problem)
    print(json.dumps([number, sent, time.time_ns(), who, error]))
async def main():
    number = time.time_ns() // slot_ns
    while not done.is_set():
        number += 1
        if (early := number * slot_ns - time.time_ns()) > 0:
            await asyncio.sleep(early / 1e9)
        task = asyncio.create_task(call(number))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
asyncio.run(main())
"""
SERVICE = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={PYTHON} {PROGRAM}\nRestart=always\n"


def peers(fleet: Fleet, rounds: int, end: float, kept: Samples) -> None:
    """All three."""
    with _answering(fleet):
        _measure(fleet, "singleton", "systemctl restart", rounds, end, kept, lambda turn: _restart(fleet))
        few = max(3, rounds // 4)
        _measure(fleet, "replicated", "Ansible, serial: 1", few, end, kept, lambda turn: _roll(fleet), hosts=ENDS)
        switch = "start the new one, then stop the old one"
        _measure(fleet, "state", switch, rounds, end, kept, lambda turn: _switch(fleet, turn))


def _restart(fleet: Fleet) -> None:
    fleet.on(ENDS[0], f"systemctl restart {UNIT}")
    _answers(fleet, ENDS[0])


def _roll(fleet: Fleet) -> None:
    played = fleet.play(PLAY)
    assert played.status == 0, played.output


def _switch(fleet: Fleet, turn: int) -> None:
    """The state is copied while the old one works; then the new one is started, called, and the old one stopped."""
    old, new = ENDS[turn % 2], ENDS[1 - turn % 2]
    fleet.on(new, f"rm -rf {STATE}")
    leaders = [str(fleet.lab.machines()[host].leader()) for host in (old, new)]
    enter = "nsenter --target {} --all --"
    out, into = (enter.format(leader) for leader in leaders)
    subprocess.run(["sh", "-c", f"{out} tar -C /root -c peer-state | {into} tar -C /root -x"], check=True)
    fleet.on(new, f"systemctl start {UNIT}")
    _answers(fleet, new)
    _lead_to(fleet, [new])
    fleet.on(old, f"systemctl stop {UNIT}")


def _measure(
    fleet: Fleet, strategy: str, system: str, rounds: int, end: float, kept: Samples, act: Callable[[int], None],
    hosts: tuple[str, ...] = ENDS[:1],
) -> None:  # fmt: skip
    for host in ENDS:
        fleet.on(host, f"systemctl {'start' if host in hosts else 'stop'} {UNIT}")
    for host in hosts:
        _answers(fleet, host)
    _lead_to(fleet, list(hosts))
    for turn in range(rounds):
        if time.monotonic() > end:
            return
        with _observing(fleet) as calls:
            time.sleep(SETTLE_S)
            began = time.time()
            act(turn)
            ended = time.time()
            time.sleep(AFTER_S)
        before = began - SETTLE_S / 2
        seen = [call for call in calls if call.sent / 1e9 > before]
        where = [ENDS[1 - turn % 2]] if strategy == "state" else list(hosts)
        kept.add(f"{strategy} total", system, "s", ended - began)
        kept.add(f"{strategy} hold", system, "ms", _hold_ms(seen))
        kept.add(f"{strategy} failed calls", system, "count", _failed(fleet, seen, where))


def _hold_ms(calls: list[Seen]) -> float:
    answers = sorted(call.got for call in calls if not call.error)
    gaps = (later - earlier for earlier, later in itertools.pairwise(answers))
    return max(*gaps, *(call.got - call.sent for call in calls if not call.error)) / 1e6


def _failed(fleet: Fleet, calls: list[Seen], hosts: list[str]) -> int:
    """Those that failed, and those that were acknowledged and are not in the state that remains."""
    text = "".join(fleet.on(host, f"cat {STATE}/accepted") for host in hosts)
    kept = {int(line) for line in text.split()}
    return sum(bool(call.error) or call.number not in kept for call in calls)


def _answers(fleet: Fleet, host: str) -> None:
    address = fleet.lab.machines()[host].address
    said = f"exec 3<>/dev/tcp/{address}/7410 && echo 0 >&3 && read -t 1 -r line <&3 && echo $line"
    until(lambda: fleet.lab.machines()[CALLER].run("bash", "-c", f"({said}) 2>/dev/null; true"), 60)


def _lead_to(fleet: Fleet, hosts: list[str]) -> None:
    addresses = " ".join(fleet.lab.machines()[host].address for host in hosts)
    fleet.put(CALLER, f"{ADDRESSES}.new", addresses)
    fleet.on(CALLER, f"mv {ADDRESSES}.new {ADDRESSES}")


@contextlib.contextmanager
def _observing(fleet: Fleet) -> Iterator[list[Seen]]:
    """The calls from a third host while the block runs, there when it has ended."""
    calls: list[Seen] = []
    with tempfile.TemporaryFile("w+") as log:
        command = on_host(fleet, CALLER, ASK, str(SLOT_NS), ADDRESSES)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, text=True)
        try:
            yield calls
        finally:
            process.communicate(timeout=30)
            log.seek(0)
            calls += [Seen(*json.loads(line)) for line in log]


@contextlib.contextmanager
def _answering(fleet: Fleet) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.write_bytes(random.randbytes(STATE_BYTES))
        for host in ENDS:
            fleet.put(host, PROGRAM, ANSWER)
            fleet.put(host, f"/run/systemd/system/{UNIT}.service", SERVICE)
            inside = Path(f"/proc/{fleet.lab.machines()[host].leader()}/root{STATE}")
            fleet.on(host, f"mkdir -p {STATE} && systemctl daemon-reload")
            (inside / "data").write_bytes(data.read_bytes())
    try:
        yield
    finally:
        for host in ENDS:
            fleet.on(host, f"systemctl stop {UNIT}; rm -rf {STATE} {PROGRAM} /run/systemd/system/{UNIT}.service")
        fleet.on(CALLER, f"rm -f {ADDRESSES}")
