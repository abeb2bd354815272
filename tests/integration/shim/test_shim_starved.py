"""A host without CPU to spare: silence is then the host's, and nobody is killed or leaves routing for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from integration.shim.test_shim_care import MOODY, agent

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
NAMES = tuple(f"Agent{number}" for number in range(8))
STARVED_S = float(os.environ.get("OUTRIDER_TEST_STARVED_S", "8"))


@contextmanager
def hogs(number: int, seconds: float) -> Iterator[None]:
    """Busy loops, each in a session of its own, among which the kernel shares the CPU out. They end by themselves."""
    code = f"import time; until = time.monotonic() + {seconds}\nwhile time.monotonic() < until: pass"
    started = [subprocess.Popen([sys.executable, "-c", code], start_new_session=True) for _ in range(number)]
    try:
        yield
        for hog in started:
            hog.wait(timeout=seconds + 30)
    finally:
        for hog in started:
            hog.kill()
            hog.wait()


def test_where_hogs_take_the_cpu_nobody_is_killed_or_leaves_routing(host: ShimHost) -> None:
    host.publish(dict.fromkeys(NAMES, agent(MOODY)))
    host.start()
    host.wait(lambda: host.passing(*NAMES))
    pids = {name: host.pid(name) for name in NAMES}
    lookups = 0
    with hogs(4 * (os.cpu_count() or 1), STARVED_S):
        until = time.monotonic() + STARVED_S
        while time.monotonic() < until:
            for name in NAMES:
                assert [found.status for found in host.served(name)] == ["passing"], host.log.read_text()[-3000:]
                lookups += 1
            time.sleep(0.02)
    assert lookups > 10 * len(NAMES)
    assert {name: host.pid(name) for name in NAMES} == pids
    metrics = host.request("GET", "/metrics").decode()
    print([line for line in metrics.splitlines() if line.startswith(("outrider_hung", "outrider_probes_doubted"))])
    assert "fails its probe" not in host.log.read_text()


def test_a_shim_that_did_not_run_itself_blames_nobody(host: ShimHost) -> None:
    """Stopped, it finds every question too old when it goes on, though each was answered in time."""
    host.publish(dict.fromkeys(NAMES, agent(MOODY)))
    host.start()
    host.wait(lambda: host.passing(*NAMES))
    assert host.shim
    for _ in range(15):
        host.shim.send_signal(signal.SIGSTOP)
        time.sleep(0.45)
        host.shim.send_signal(signal.SIGCONT)
        time.sleep(0.003)  # enough to ask, too short to hear the answer
    host.shim.send_signal(signal.SIGCONT)
    host.wait(lambda: host.report(NAMES[0]))
    assert "fails its probe" not in host.log.read_text()
