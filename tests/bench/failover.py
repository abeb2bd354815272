"""Failover on lab hosts: how long callers are without a singleton when its holder is killed, hangs, or loses its host.

    python tests/bench/failover.py [--only kill,hang,routing,host,ttl,keepalived,systemd] [--count 100] [--add]

Needs root. Every host calls the singleton 200 times a second; all hosts share the machine's monotonic clock. `--add`
adds to what earlier parts measured. Where $OUTRIDER_LAB names a lab, it is done there, and the lab is left up.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from failover_peers import keepalived, session_ttl, systemd_restarts
from failover_watch import Callers, Watcher, pid_of
from harness import ROOT, Samples, write
from lab_rows import freeze, kill, leader

from faults.small import epochs, small_fleet, well
from hosts.fleet import Fleet, until

SINGLETON, WITH_STANDBYS, REPLICATED = "Counter", ("Counter", "Ledger"), "Echo"
LED = ", the Consul leader's host"
OURS = "outrider"


def wait_well(fleet: Fleet) -> None:
    """Until every host sees all as it should be, and Consul has all its servers."""
    until(lambda: well(fleet), 120, fleet.what_is_wrong)


def holder_is(fleet: Fleet, number: int, case: str, count: int, kept: Samples) -> None:
    """Send a signal to the holder's process, again and again; until it is answered under the next epoch."""
    callers = Callers(fleet, SINGLETON)
    try:
        for _ in kept.turns(count):
            wait_well(fleet)
            pid = pid_of(fleet, callers.instance)
            failed = sum(len(caller.errors) for caller in callers.all)
            since = time.monotonic_ns()
            os.kill(pid, number)
            seen = callers.settle()
            kept.add(case, OURS, "ms", (min(seen) - since) / 1e6)
            kept.add(f"{case}, on every host", OURS, "ms", (max(seen) - since) / 1e6)
            errors = [error for caller in callers.all for error in caller.errors]
            kept.add(f"{case}: failed calls", OURS, "count", len(errors) - failed)
    finally:
        callers.stop()


def out_of_routing(fleet: Fleet, count: int, trouble: str, kept: Samples) -> None:
    """Kill an instance of a replicated agent; until no host's lookup names it any more. Optionally without a leader."""
    watchers = [Watcher(fleet, host, REPLICATED) for host in fleet.lab.machines()]
    try:
        for turn in kept.turns(count):
            wait_well(fleet)
            leading = leader(fleet)
            rows = [row for row in fleet.status()["instances"] if row["agent"] == REPLICATED]
            victims = sorted(row["instance"] for row in rows if not trouble or row["host"] != leading)
            victim = victims[turn % len(victims)]
            pid = pid_of(fleet, victim)
            for watcher in watchers:
                watcher.catch_up()
                watcher.wait(victim, there=True)
            if trouble == "killed":
                kill(fleet, leading)
            elif trouble == "frozen":
                freeze(fleet, leading, 6.0)
            since = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            gone = max(watcher.wait(victim, there=False) for watcher in watchers)
            kept.add("out of routing" + (f", leader {trouble}" if trouble else ""), OURS, "ms", (gone - since) / 1e6)
    finally:
        for watcher in watchers:
            watcher.stop()


def host_lost(fleet: Fleet, count: int, led: bool, kept: Samples) -> None:
    """Power a host off that has a holder; until the next one answers, and until no lookup names its replica."""
    for _ in kept.turns(count):
        wait_well(fleet)
        host, agent = _host_with_holder(fleet, led)
        others = [name for name in fleet.lab.machines() if name != host]
        rows = fleet.status(others[0])["instances"]
        replicas = [row["instance"] for row in rows if row["agent"] == REPLICATED and row["host"] == host]
        callers = Callers(fleet, agent, others)
        watchers = [Watcher(fleet, name, REPLICATED) for name in others]
        for watcher in watchers:
            for replica in replicas:
                watcher.wait(replica, there=True)
        since = time.monotonic_ns()
        fleet.lab.machines()[host].power_off()
        try:
            kept.add(f"host lost singleton{LED if led else ''}", OURS, "ms", (min(callers.settle()) - since) / 1e6)
            for replica in replicas:  # an earlier loss may have moved the host's own
                gone = max(watcher.wait(replica, there=False) for watcher in watchers)
                kept.add(f"host lost replicated{LED if led else ''}", OURS, "ms", (gone - since) / 1e6)
        finally:
            for teller in (callers, *watchers):
                teller.stop()
            fleet.lab.start(host)


def _host_with_holder(fleet: Fleet, led: bool) -> tuple[str, str]:
    """A host that leads Consul, or one that does not, and the singleton with standbys that is held there."""
    while True:
        leading = leader(fleet)
        rows = [row for row in fleet.status("lab4")["instances"] if row["agent"] in WITH_STANDBYS]
        wanted = [row for row in rows if (row["host"] == leading) is led]
        for row in wanted:
            if row["role"] == "holder":
                return row["host"], row["agent"]
        # The holders are all where they are not wanted: one that has a standby there moves.
        agent = next((row["agent"] for row in wanted), WITH_STANDBYS[0])
        holder = next(row for row in rows if row["agent"] == agent and row["role"] == "holder")
        before = epochs(fleet)
        os.kill(pid_of(fleet, holder["instance"]), signal.SIGKILL)
        until(lambda before=before: epochs(fleet) != before, 30)
        wait_well(fleet)


def cases(count: int, rounds: int) -> dict[str, Callable[[Fleet, Samples], None]]:
    """By name."""
    return {
        "kill": lambda fleet, kept: holder_is(fleet, signal.SIGKILL, "singleton kill -9", count, kept),
        "hang": lambda fleet, kept: holder_is(fleet, signal.SIGSTOP, "hang", max(3, count // 3), kept),
        "routing": lambda fleet, kept: out_of_routing(fleet, count, "", kept),
        "routing-killed": lambda fleet, kept: out_of_routing(fleet, rounds, "killed", kept),
        "routing-frozen": lambda fleet, kept: out_of_routing(fleet, rounds, "frozen", kept),
        "host": lambda fleet, kept: host_lost(fleet, rounds, False, kept),
        "host-led": lambda fleet, kept: host_lost(fleet, rounds, True, kept),
        "ttl": lambda fleet, kept: session_ttl(fleet, rounds, kept),
        "keepalived": lambda fleet, kept: keepalived(fleet, rounds, kept),
        "systemd": lambda fleet, kept: systemd_restarts(fleet, count, kept),
    }


def main() -> None:
    """Run the cases that are named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(cases(0, 0)))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15, help="of what takes a host, Consul's leader or half a minute")
    parser.add_argument("--add", action="store_true", help="to the samples of earlier runs")
    parser.add_argument("--within", type=float, default=float("inf"), help="begin nothing later than that, in seconds")
    arguments = parser.parse_args()
    file = ROOT / "build/bench/failover-samples.jsonl"
    kept = Samples(file, add=arguments.add, within_s=arguments.within)
    try:
        with small_fleet(os.environ.get("OUTRIDER_LAB", "")) as fleet:
            for case in arguments.only.split(","):
                cases(arguments.count, arguments.rounds)[case](fleet, kept)
    finally:
        if rows := kept.rows():
            write("failover", rows)


if __name__ == "__main__":
    main()
