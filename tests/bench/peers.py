"""How soon one host's news is known on another: Consul's user events beside our datagrams, in one run.

Three Consul servers and one client with the role's gossip settings, and a shim's peers for each, on loopback. Each
piece of news is sent both ways at the same moment, at rest and just after the leader was stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import uvloop
from harness import Row, row, write

sys.path.append(str(Path(__file__).resolve().parent.parent))
from integration.conftest import ConsulServer, find_consul, free_ports
from outrider.errors import ConsulError
from outrider.host.peers import Peers
from outrider.host.peers.votes import to_next_beat

NAMES = ("server1", "server2", "server3", "client")
HOSTS = {name: f"127.0.0.{number + 1}" for number, name in enumerate(NAMES)}
GOSSIP = {"probe_interval": "250ms", "probe_timeout": "125ms", "gossip_interval": "60ms", "suspicion_mult": 3}
EVENT = "outrider-bench"
# What is not known after this is counted as such: it is no help any more.
GIVE_UP_S = 10.0
SPACING_S = 0.1
KEY = bytes(32)
Heard = dict[tuple[str, int], float]  # who heard which number, and when


class Cluster:
    """Four Consul agents on loopback, and who of them hears which event when."""

    def __init__(self, folder: Path) -> None:
        binary = find_consul()
        if not binary:
            raise SystemExit("no Consul found: run `make demo` once, or set OUTRIDER_TEST_CONSUL")
        self.agents = {name: ConsulServer(binary, folder / name) for name in NAMES}
        self.heard: Heard = {}
        self._ended = threading.Event()
        join = [f"127.0.0.1:{agent.ports['serf_lan']}" for agent in self.agents.values()]
        for name, agent in self.agents.items():
            file = agent.folder / "consul.json"
            config = json.loads(file.read_text()) | {"node_name": name, "retry_join": join, "gossip_lan": GOSSIP}
            config |= {"retry_interval": "1s"}
            if name == "client":
                config |= {"server": False, "bootstrap_expect": 0}
                del config["ports"]["server"]
            else:
                config |= {"bootstrap_expect": 3}
            file.write_text(json.dumps(config))

    def start(self) -> None:
        for agent in self.agents.values():
            with agent.log_file.open("ab") as log:
                command = [agent.binary, "agent", f"-config-file={agent.folder / 'consul.json'}"]
                agent.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.settle()
        for name in NAMES:
            threading.Thread(target=self._listen, args=(name,), daemon=True).start()
        time.sleep(2.0)

    def stop(self) -> None:
        self._ended.set()
        for agent in self.agents.values():
            agent.stop()

    def settle(self) -> str:
        """Wait until all are alive and every write is taken; the leader's name."""
        began = time.monotonic()
        while time.monotonic() - began < 60.0:
            with suppress(ConsulError, ValueError, StopIteration):
                for agent in self.agents.values():
                    agent.client.put("/v1/kv/ready", b"1", timeout_s=1.0)
                    members = json.loads(agent.client.get("/v1/agent/members", timeout_s=1.0).body)
                    if sum(member["Status"] == 1 for member in members) != len(NAMES):
                        raise ValueError
                address = json.loads(self.agents["client"].client.get("/v1/status/leader").body)
                port = int(address.rpartition(":")[2])
                return next(n for n, agent in self.agents.items() if agent.ports["server"] == port and n != "client")
            time.sleep(0.1)
        raise SystemExit("the Consul cluster does not come together")

    def fire(self, sender: str, number: int) -> None:
        with suppress(ConsulError):
            self.agents[sender].client.put(f"/v1/event/fire/{EVENT}", str(number).encode(), timeout_s=GIVE_UP_S)

    def _listen(self, name: str) -> None:
        index: int | None = None
        while not self._ended.is_set():
            try:
                reply = self.agents[name].client.get("/v1/event/list", params={"name": EVENT}, index=index, wait_s=5.0)
            except ConsulError:
                self._ended.wait(0.05)
                continue
            now, index = time.monotonic(), reply.index
            for event in json.loads(reply.body or b"[]") or ():
                self.heard.setdefault((name, int(base64.b64decode(event["Payload"]))), now)


class Shims:
    """The peers of as many hosts, each on a thread and loop of its own."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.heard: Heard = {}
        self.lost: dict[tuple[str, str], float] = {}
        self.loops: dict[str, asyncio.AbstractEventLoop] = {}
        self.peers: dict[str, Peers] = {}

    def start(self) -> None:
        for name in NAMES:
            ready = threading.Event()
            threading.Thread(target=self._run, args=(name, ready), daemon=True).start()
            ready.wait()
        time.sleep(1.0)

    def report(self, sender: str, number: int) -> None:
        peers = self.peers[sender]
        self.loops[sender].call_soon_threadsafe(peers.report, str(number), True, time.monotonic(), "died")
        # Old news would be carried along and make the datagrams larger than they ever are.
        self.loops[sender].call_soon_threadsafe(self.loops[sender].call_later, 1.0, peers.withdraw, str(number))

    def silence_and_back(self, name: str) -> list[float]:
        """How long each other host took to take a silent one out of routing."""
        self.lost.clear()
        began = time.monotonic()
        self._on(name, self._silence(name))
        _until(lambda: len(self.lost) == len(NAMES) - 1)
        self._on(name, self.peers[name].start())
        _until(lambda: not any(peers.down_hosts for peers in self.peers.values()))
        return [at - began for at in self.lost.values()]

    def _on(self, name: str, coroutine: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loops[name]).result()

    async def _silence(self, name: str) -> None:
        for timer in self.peers[name]._timers.values():
            timer.cancel()
        await self.peers[name].line.close()
        self.peers[name].line._closed.clear()

    def _run(self, name: str, ready: threading.Event) -> None:
        async def serve() -> None:
            self.loops[name] = asyncio.get_running_loop()
            self.peers[name] = Peers(name, KEY, HOSTS[name], self.port, lambda: HOSTS, lambda: self._changed(name))
            await self.peers[name].start()
            ready.set()
            await asyncio.Event().wait()

        uvloop.run(serve())

    def _changed(self, name: str) -> None:
        now = time.monotonic()
        for _, instance in self.peers[name].down_instances:
            self.heard.setdefault((name, int(instance)), now)
        for host in self.peers[name].down_hosts:
            self.lost.setdefault((name, host), now)


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


def measured(cluster: Cluster, shims: Shims, case: str, freeze: bool, sender_kind: str, count: int) -> list[Row]:
    """`count` pieces of news in rounds of ten: each round has a leader of its own to stop."""
    sent: dict[int, tuple[float, str, str]] = {}
    pool = ThreadPoolExecutor(16)
    for first in range(0, count, 10):
        leader = cluster.settle()
        followers = [name for name in NAMES[:3] if name != leader]
        sender = "client" if sender_kind == "client" else followers[0]
        if freeze:
            cluster.agents[leader].freeze()
        for number in range(first, min(first + 10, count)):
            key = hash((case, number)) % 10**12
            sent[key] = (time.monotonic(), sender, followers[1])
            pool.submit(cluster.fire, sender, key)
            shims.report(sender, key)
            time.sleep(SPACING_S)
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline and any((to, key) not in cluster.heard for key, (_, _, to) in sent.items()):
            time.sleep(0.01)
        if freeze:
            cluster.agents[leader].thaw()
    pool.shutdown()
    rows = []
    for system, heard in (("consul user events", cluster.heard), ("outrider", shims.heard)):
        times = [heard.get((to, key), at + GIVE_UP_S) - at for key, (at, _, to) in sent.items()]
        late = sum(seconds >= GIVE_UP_S for seconds in times)
        if late:
            print(f"{case}, {system}: {late} of {count} not known after {GIVE_UP_S:g} s")
        rows.append(row(case, system, "ms", [min(seconds, GIVE_UP_S) * 1000 for seconds in times]))
    return rows


def cost(seconds: float) -> list[Row]:
    """What four hosts' heartbeats cost each, in processes of their own; and as many datagrams with nothing in them."""
    rows = []
    for system, option in (("outrider", "--beat"), ("empty datagrams", "--bare")):
        command = [sys.executable, __file__, option, str(free_ports(1)[0]), "--seconds", str(seconds)]
        runs = [subprocess.Popen([*command, "--host", name], stdout=subprocess.PIPE, text=True) for name in NAMES]
        shares = [float(run.communicate()[0]) for run in runs]
        rows.append(row("heartbeats of four hosts, share of a core", system, "ratio", shares))
    return rows


async def share(seconds: float) -> None:
    """Print the share of a core that this process takes, once it is under way."""
    await asyncio.sleep(2.0)
    before = time.process_time()
    await asyncio.sleep(seconds)
    print((time.process_time() - before) / seconds)


async def beat(host: str, port: int, seconds: float) -> None:
    """One host of `cost`."""
    peers = Peers(host, KEY, HOSTS[host], port, lambda: HOSTS, lambda: None)
    await peers.start()
    await share(seconds)
    assert peers.line.received > 20 * seconds


async def bare(host: str, port: int, seconds: float) -> None:
    """One host of `cost` that says nothing as often."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(HOSTS[host], port))

    def send() -> None:
        loop.call_later(to_next_beat(time.time()), send)
        for other in HOSTS:
            if other != host:
                transport.sendto(bytes(60), (HOSTS[other], port))

    send()
    await share(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="pieces of news per case")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the heartbeats are measured")
    parser.add_argument("--beat", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--bare", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--host", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if port := args.beat or args.bare:
        uvloop.run((beat if args.beat else bare)(args.host, port, args.seconds))
        return
    logging.disable(logging.WARNING)  # hosts fall silent on purpose
    rows = cost(args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        cluster, shims = Cluster(Path(folder)), Shims()
        try:
            cluster.start()
            shims.start()
            rows += measured(cluster, shims, "news, at rest", False, "server", args.count)
            rows += measured(cluster, shims, "news, leader frozen, from a server", True, "server", args.count)
            rows += measured(cluster, shims, "news, leader frozen, from a client", True, "client", args.count)
        finally:
            cluster.stop()
        silent = [seconds * 1000 for _ in range(10) for seconds in shims.silence_and_back("client")]
        rows.append(row("host silent to out of routing", "outrider", "ms", silent))
    write("peers", rows)


if __name__ == "__main__":
    main()
