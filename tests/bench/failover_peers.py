"""What people have today, beside ours: Consul's session TTL, keepalived, systemd's restart; on the same lab hosts."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import time
from collections.abc import Iterator

from failover_watch import PYTHON, Teller
from harness import Samples

from hosts.fleet import Fleet, until
from hosts.lab import packages

TOKEN, UNIT, PROGRAM = "/root/.peer-token", "peer-answer", "/root/peer-answer.py"
KEYS = "outrider/test/peers/"
# A holder of many keys, each by a session of its own that it renews at half of the TTL.
HOLD = """
import consul, sys, threading, time
client = consul.Consul(token=open("/root/.peer-token").read())
def hold(number):
    session = client.session.create(ttl=10, lock_delay=int(sys.argv[2]), behavior="release")
    assert client.kv.put(f"{sys.argv[1]}{number}", "holder", acquire=session)
    while True:
        time.sleep(5)
        client.session.renew(session)
for number in range(int(sys.argv[3])):
    threading.Thread(target=hold, args=(number,)).start()
    time.sleep(0.3)
print("holds", flush=True)
"""
# A standby for each: waits until nobody holds the key, and tries once a second while Consul's lock delay refuses it.
STAND_BY = """
import consul, sys, threading, time
def stand_by(number):
    client = consul.Consul(token=open("/root/.peer-token").read())
    session, index = client.session.create(ttl=60, behavior="release"), None
    while True:
        index, found = client.kv.get(f"{sys.argv[1]}{number}", index=index, wait="30s")
        while found and "Session" not in found:
            if client.kv.put(f"{sys.argv[1]}{number}", "standby", acquire=session):
                return print(number, time.monotonic_ns(), flush=True)
            time.sleep(1)
            index, found = client.kv.get(f"{sys.argv[1]}{number}")
for number in range(int(sys.argv[2])):
    threading.Thread(target=stand_by, args=(number,)).start()
"""
# What is kept running: tells its host's name to whoever asks.
ANSWER = """
import os, socket
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.bind(("0.0.0.0", 7400))
while True:
    _, who = line.recvfrom(64)
    line.sendto(f"{os.uname().nodename} {os.getpid()}".encode(), who)
"""
ASK = """
import socket, sys, threading, time
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.settimeout(0.02)
done, last = [], None
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
while not done:
    try:
        line.sendto(b"who", (sys.argv[1], 7400))
        said = line.recv(64).decode()
    except OSError:
        time.sleep(0.001)
        continue
    if said != last:
        last = said
        print(said, time.monotonic_ns(), flush=True)
    time.sleep(0.002)
"""
SERVICE = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={python} {program}\nRestart={restart}\n"
# The defaults, but for the check of the process, which is once a second as in its documentation.
KEEPALIVED = """
global_defs {{ script_user root
    enable_script_security }}
vrrp_script alive {{ script "/usr/bin/pgrep -f peer-answer"
    interval 1 }}
vrrp_instance peer {{
    state BACKUP
    interface host0
    virtual_router_id 74
    priority {priority}
    virtual_ipaddress {{ {address}/24 }}
    track_script {{ alive }}
}}
"""


def session_ttl(fleet: Fleet, count: int, kept: Samples) -> None:
    """A holder is killed; until its standby has the lock. All keys at once: each session ends by itself."""
    for host in ("lab2", "lab4"):
        fleet.put(host, TOKEN, fleet.tokens()["management"]["secret"])
    for delay_s, name in ((15, "Consul session, TTL 10 s"), (0, "Consul session, TTL 10 s, no lock delay")):
        prefix = f"{KEYS}{random.randrange(1 << 30)}/"
        end = f"pkill -9 -f '[{prefix[0]}]{prefix[1:]}'"  # written so that it does not mean itself
        holder = Teller(fleet, "lab2", PYTHON, "-c", HOLD, prefix, str(delay_s), str(count))
        standby = None
        try:
            holder.next()
            until(lambda prefix=prefix: len(fleet.consul("lab4", f"kv/{prefix}?keys")[1]) == count, 10)
            standby = Teller(fleet, "lab4", PYTHON, "-c", STAND_BY, prefix, str(count))
            time.sleep(random.uniform(8, 12))  # past the first renewals
            since = time.monotonic_ns()
            fleet.on("lab2", end)
            for _ in range(count):
                kept.add("singleton kill -9", name, "ms", (int(standby.next()[1]) - since) / 1e6)
        finally:
            for host in ("lab2", "lab4"):
                fleet.on(host, end, check=False)
            for teller in (holder, *([standby] if standby else [])):
                teller.stop()
            fleet.consul("lab4", f"kv/{KEYS}?recurse", method="DELETE")


def keepalived(fleet: Fleet, count: int, kept: Samples) -> None:
    """Two hosts share an address; the process that answers there is killed, or its whole host falls silent."""
    address = str(ipaddress.ip_address(str(fleet.lab.read()["gateway"])) + 199)
    first, other = "lab2", "lab1"
    silent = f"pkill -9 keepalived; systemctl kill --signal=KILL {UNIT}; ip addr del {address}/24 dev host0"
    how = {"singleton kill -9": f"systemctl kill --signal=KILL {UNIT}", "host lost singleton": silent}
    with (
        _answering(fleet, (first, other), "no"),
        _sharing(fleet, (other, first), address),
        _asking(fleet, address) as client,
    ):
        for turn in kept.turns(2 * count):
            case = list(how)[turn % 2]
            _answer_of(client, first)
            time.sleep(random.uniform(1, 2))  # at any moment of the second between two advertisements
            since = time.monotonic_ns()
            fleet.on(first, how[case], check=False)
            kept.add(case, "keepalived", "ms", (_answer_of(client, other) - since) / 1e6)
            fleet.on(first, f"systemctl restart {UNIT} keepalived")


def systemd_restarts(fleet: Fleet, count: int, kept: Samples) -> None:
    """A process that answers is killed; until systemd's next one does. A host that is lost stays lost."""
    with _answering(fleet, ("lab1",), "always"), _asking(fleet, fleet.lab.machines()["lab1"].address) as client:
        pid = client.next()[1]
        for _ in kept.turns(count):
            since = time.monotonic_ns()
            fleet.on("lab1", f"kill -9 {pid}")
            _, pid, when = client.next()
            kept.add("singleton kill -9", "systemd, Restart=always", "ms", (int(when) - since) / 1e6)
            time.sleep(0.2)


def _answer_of(client: Teller, host: str) -> int:
    """When that host first answered, in monotonic ns. Raises TimeoutError."""
    while (said := client.next())[0] != host:
        pass
    return int(said[2])


@contextlib.contextmanager
def _asking(fleet: Fleet, address: str) -> Iterator[Teller]:
    client = Teller(fleet, "lab4", PYTHON, "-c", ASK, address)
    try:
        yield client
    finally:
        client.stop()


@contextlib.contextmanager
def _answering(fleet: Fleet, hosts: tuple[str, ...], restart: str) -> Iterator[None]:
    for host in hosts:
        fleet.put(host, PROGRAM, ANSWER)
        unit = SERVICE.format(python=PYTHON, program=PROGRAM, restart=restart)
        fleet.put(host, f"/run/systemd/system/{UNIT}.service", unit)
        fleet.on(host, f"systemctl daemon-reload && systemctl start {UNIT}")
    try:
        yield
    finally:
        for host in hosts:
            fleet.on(host, f"systemctl stop {UNIT}; rm -f {PROGRAM} /run/systemd/system/{UNIT}.service", check=False)


@contextlib.contextmanager
def _sharing(fleet: Fleet, hosts: tuple[str, ...], address: str) -> Iterator[None]:
    """keepalived on the hosts, the last one preferred."""
    for priority, host in enumerate(hosts, start=100):
        packages.push(fleet.lab.machines()[host], "keepalived")
        fleet.put(host, "/etc/keepalived/keepalived.conf", KEEPALIVED.format(priority=priority, address=address))
        fleet.on(host, "systemctl restart keepalived")
    try:
        yield
    finally:
        for host in hosts:
            fleet.on(host, "systemctl stop keepalived", check=False)
