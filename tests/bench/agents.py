"""What a sample agent costs: each kind started alone, then the reference fleet's 77 at once."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from harness import ROOT, Row, row, write

from outrider.fleet.load import load_fleet

AGENTS = ROOT / "examples/agents"
MODELS = ("", "minilm", "magika", "vad", "langid", "orientation", "ocr")
ROUNDS = 5
WAIT_S = 60.0


class Started:
    """One agent's process and when it was started."""

    def __init__(self, folder: Path, name: str, model: str) -> None:
        self.log = folder / f"{name}.log"
        env = {"PATH": os.defpath, "PYTHONPATH": str(AGENTS), "OUTRIDER_AGENT": name, "OUTRIDER_INSTANCE": f"{name}-1"}
        env |= {"OUTRIDER_PORT": "0", "OUTRIDER_MODEL": model} if model else {"OUTRIDER_PORT": "0"}
        command = [sys.executable, "-m", "model_agent" if model else "sample_agent"]
        self.began = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = psutil.Popen(command, cwd=AGENTS, env=env, stdout=log, stderr=log)
        self.ready_ms = 0.0

    def ready(self) -> bool:
        """True once its health says so; the time is kept."""
        port = re.search(r"main (\d+)", self.log.read_text())
        if not port:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status != 200:
                return False
        except OSError:
            return False
        finally:
            connection.close()
        self.ready_ms = (time.perf_counter() - self.began) * 1000
        return True

    def cpu_ms(self) -> float:
        """Processor time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system) * 1000

    def pss(self) -> int:
        """Memory, shared pages divided among those who share them."""
        return int(self.process.memory_full_info().pss)


def wait_until_ready(agents: Sequence[Started]) -> None:
    """Raises TimeoutError if one is not ready in time."""
    left, deadline = list(agents), time.monotonic() + WAIT_S
    while left:
        left = [agent for agent in left if not agent.ready()]
        if time.monotonic() > deadline:
            raise TimeoutError(left[0].log.read_text())
        time.sleep(0.005)


def end(agents: Sequence[Started]) -> None:
    """SIGTERM to all, SIGKILL to who does not go."""
    for agent in agents:
        agent.process.terminate()
    for process in psutil.wait_procs([agent.process for agent in agents], timeout=5)[1]:
        process.kill()


def alone(folder: Path, model: str) -> list[Row]:
    """One agent after another, nothing else of ours running."""
    ready, cpu, pss = [], [], []
    for number in range(ROUNDS):
        agent = Started(folder, f"{model or 'light'}{number}", model)
        try:
            wait_until_ready([agent])
            ready.append(agent.ready_ms)
            cpu.append(agent.cpu_ms())
            pss.append(agent.pss())
        finally:
            end([agent])
    name = model or "sample_agent"
    return [
        row(f"{name}: ready", "outrider", "ms", ready),
        row(f"{name}: CPU until ready", "outrider", "ms", cpu),
        row(f"{name}: PSS alone", "outrider", "bytes", pss),
    ]


def together(folder: Path) -> list[Row]:
    """The reference fleet's instances, all started at once."""
    fleet = load_fleet(ROOT / "inventories/reference/fleet.yml")
    wanted = [
        (f"{name}{n}", agent.model) for name, agent in fleet.agents.items() for n in range(agent.instance_count())
    ]
    began = time.perf_counter()
    agents = [Started(folder, name, model) for name, model in wanted]
    try:
        wait_until_ready(agents)
        seconds = time.perf_counter() - began
        cpu = sum(agent.cpu_ms() for agent in agents)
        pss = sum(agent.pss() for agent in agents)
    finally:
        end(agents)
    return [
        row(f"{len(agents)} agents at once: ready", "outrider", "s", [seconds]),
        row(f"{len(agents)} agents at once: CPU until ready", "outrider", "s", [cpu / 1000]),
        row(f"{len(agents)} agents at once: PSS", "outrider", "bytes", [pss]),
    ]


def main() -> int:
    """Run everything; it takes about half a minute."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [found for model in MODELS for found in alone(Path(folder), model)]
        rows += together(Path(folder))
    write("agents", rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (TimeoutError, subprocess.SubprocessError) as error:
        sys.exit(f"bench-agents: {error}")
