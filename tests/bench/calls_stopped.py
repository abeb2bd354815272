"""Who publishes the catalogue stands still, then is gone: calls go on by what it said last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
from calls_faults import RATE, THREADS, TIMEOUT_S
from calls_instance import Started
from calls_load import Load
from calls_ours import AGENT, publish
from harness import Row, row

from outrider.calls import Client
from outrider.discovery.records import Instance


def shim_stopped(seconds: float) -> list[Row]:
    """Calls while nobody confirms the catalogue: longer than the 10 s after which it is given up, at full length."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runtime = Path(folder) / "run"
        instances = [Started(runtime, f"{AGENT}-{number}") for number in (1, 2, 3)]
        for instance in instances:
            stack.callback(instance.end)
        shim = _publisher(runtime, [instance.listed() for instance in instances])
        stack.callback(shim.wait)
        stack.callback(shim.kill)
        client = Client(runtime=runtime, caller="caller")
        load = Load(lambda: client.call(AGENT, "write", {}, timeout=TIMEOUT_S), RATE, THREADS)
        time.sleep(1)
        shim.send_signal(signal.SIGSTOP)
        time.sleep(seconds / 2)
        os.kill(shim.pid, signal.SIGKILL)
        time.sleep(seconds / 2)
        made = load.stop()
    return [
        row("shim stopped: calls", "outrider", "count", [len(made)]),
        row("shim stopped: failed calls", "outrider", "count", [sum(bool(call.error) for call in made)]),
        row("shim stopped: answered calls", "outrider", "ms", [(c.ended - c.due) * 1000 for c in made if not c.error]),
    ]


def _publisher(runtime: Path, instances: list[Instance]) -> subprocess.Popen[bytes]:
    shim = subprocess.Popen([sys.executable, __file__, str(runtime)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert shim.stdin is not None
    assert shim.stdout is not None
    shim.stdin.write(msgspec.json.encode(instances))
    shim.stdin.close()
    shim.stdout.readline()
    return shim


def main() -> None:
    """Publish, and confirm each second, as a shim does."""
    writer = publish(Path(sys.argv[1]), msgspec.json.decode(sys.stdin.read(), type=list[Instance]))
    print("published", flush=True)
    while True:
        writer.confirm()
        time.sleep(1)


if __name__ == "__main__":
    main()
