"""What is done to a fleet. Each fault ends by itself, and leaves the hosts as they were."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from faults.observer import SINGLETONS
from hosts.fleet import Fleet, until

HOSTS = ("lab1", "lab2", "lab3")  # the observer calls from lab4


class Scene(Struct):
    """A fleet, and the dice that choose in it."""

    fleet: Fleet
    rng: random.Random

    def holder(self, agent: str = "") -> tuple[str, str]:
        """Instance and host of a singleton's holder, where it may be hurt; any holder if no agent is named."""

        def found() -> list[tuple[str, str]]:
            rows = self.fleet.status("lab4")["instances"]
            names = (agent,) if agent else SINGLETONS
            return [(r["instance"], r["host"]) for r in rows if r["agent"] in names and r["role"] == "holder"]

        there = until(lambda: [item for item in found() if agent or item[1] in HOSTS], 30)
        return self.rng.choice(sorted(there))

    def host(self) -> str:
        """One that may be hurt."""
        return self.rng.choice(HOSTS)

    def leader(self) -> str:
        """The host whose Consul leads."""
        _, found = self.fleet.consul("lab4", "operator/raft/configuration")
        return next(str(server["Node"]) for server in found["Servers"] if server["Leader"])

    def shell(self, host: str, command: str) -> None:
        """Run it on a host; that it fails is no matter."""
        with contextlib.suppress(LookupError):
            self.fleet.on(host, command, check=False)

    def for_seconds(self, seconds: float, undo: Callable[[], None]) -> None:
        """Wait, then undo what was done; also after Ctrl-C."""
        try:
            time.sleep(seconds)
        finally:
            undo()


def kill_holder(scene: Scene) -> None:
    """kill -9 of a holder."""
    instance, host = scene.holder()
    scene.shell(host, f"kill -9 $(systemctl show -P MainPID outrider-agent@{instance})")


def stop_holder(scene: Scene) -> None:
    """SIGSTOP of a holder, for good: it must be killed and replaced."""
    instance, host = scene.holder()
    scene.shell(host, f"kill -STOP $(systemctl show -P MainPID outrider-agent@{instance})")


def kill_shim(scene: Scene) -> None:
    """kill -9 of a shim."""
    scene.shell(scene.holder()[1], "systemctl kill --kill-who=main --signal=KILL outriderd")


def freeze_shim(scene: Scene) -> None:
    """SIGSTOP of a shim for longer than a lease."""
    host = scene.holder()[1]
    scene.shell(host, "kill -STOP $(systemctl show -P MainPID outriderd)")
    scene.for_seconds(4.0, lambda: scene.shell(host, "kill -CONT $(systemctl show -P MainPID outriderd)"))


def upgrade_shim(scene: Scene) -> None:
    """An orderly restart of a shim."""
    scene.shell(scene.holder()[1], "systemctl restart outriderd")


def kill_consul(scene: Scene) -> None:
    """kill -9 of a Consul agent."""
    scene.shell(scene.host(), "systemctl kill --kill-who=main --signal=KILL consul")


def freeze_consul(scene: Scene) -> None:
    """SIGSTOP of a Consul agent beside a holder, for five seconds."""
    host = scene.holder()[1]
    scene.shell(host, "kill -STOP $(pidof consul)")
    scene.for_seconds(5.0, lambda: scene.shell(host, "kill -CONT $(pidof consul)"))


def kill_leader(scene: Scene) -> None:
    """kill -9 of Consul's leader."""
    scene.shell(scene.leader(), "systemctl kill --kill-who=main --signal=KILL consul")


def freeze_leader(scene: Scene) -> None:
    """SIGSTOP of Consul's leader for eight seconds."""
    host = scene.leader()
    scene.shell(host, "kill -STOP $(pidof consul)")
    scene.for_seconds(8.0, lambda: scene.shell(host, "kill -CONT $(pidof consul)"))


def lose_quorum(scene: Scene) -> None:
    """Two of three Consul servers stand still for ten seconds."""
    hosts = scene.rng.sample(HOSTS, 2)
    for host in hosts:
        scene.shell(host, "kill -STOP $(pidof consul)")
    scene.for_seconds(10.0, lambda: [scene.shell(host, "kill -CONT $(pidof consul)") for host in hosts] and None)


def power_off(scene: Scene) -> None:
    """A host's power is lost, and comes back after eight seconds."""
    host = scene.holder()[1]
    scene.fleet.lab.machines()[host].power_off()
    scene.for_seconds(8.0, lambda: scene.fleet.lab.start(host))


def cut_link(scene: Scene) -> None:
    """A host's network is gone for eight seconds; the host itself runs."""
    host = scene.holder()[1]
    _in_network(scene, host, "ip", "link", "set", "host0", "down")
    scene.for_seconds(8.0, lambda: _in_network(scene, host, "ip", "link", "set", "host0", "up"))


def lose_what_comes(scene: Scene) -> None:
    """A host hears nobody for six seconds, and is heard."""
    _filtered(scene, scene.holder()[1], "input", "iifname host0 drop", 6.0)


def lose_what_goes(scene: Scene) -> None:
    """A host is heard by nobody for six seconds, and hears."""
    _filtered(scene, scene.holder()[1], "output", "oifname host0 drop", 6.0)


def lose_a_third(scene: Scene) -> None:
    """Three of ten packets to a host are lost for ten seconds."""
    _filtered(scene, scene.holder()[1], "input", "iifname host0 numgen random mod 10 < 3 drop", 10.0)


def end_session(scene: Scene) -> None:
    """Somebody destroys the session that a host's leases are locked by."""
    agent = scene.rng.choice(SINGLETONS)
    _, rows = scene.fleet.consul("lab4", f"kv/outrider/leases/{agent}")
    if session := rows[0].get("Session"):
        scene.fleet.consul("lab4", f"session/destroy/{session}", method="PUT")


def starve(scene: Scene) -> None:
    """Eight busy loops, in sessions of their own, for eight seconds."""
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True) for _ in range(8)]

    def end() -> None:
        for hog in hogs:
            os.killpg(hog.pid, signal.SIGKILL)
            hog.wait()

    scene.for_seconds(8.0, end)


FAULTS: dict[str, Callable[[Scene], None]] = {
    fault.__name__: fault
    for fault in (
        *(kill_holder, stop_holder, kill_shim, freeze_shim, upgrade_shim, kill_consul, freeze_consul, kill_leader),
        *(freeze_leader, lose_quorum, power_off, cut_link, lose_what_comes, lose_what_goes, lose_a_third),
        *(end_session, starve),
    )
}


def both(scene: Scene, one: str, other: str) -> None:
    """Two faults at the same moment."""
    threads = [threading.Thread(target=FAULTS[name], args=(scene,)) for name in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _in_network(scene: Scene, host: str, *command: str) -> None:
    with contextlib.suppress(LookupError):
        leader = str(scene.fleet.lab.machines()[host].leader())
        subprocess.run(["nsenter", "--target", leader, "--net", "--", *command], check=False, capture_output=True)


def _filtered(scene: Scene, host: str, hook: str, rule: str, seconds: float) -> None:
    table = f"add table inet fault; add chain inet fault it {{ type filter hook {hook} priority 0; }}; "
    _in_network(scene, host, "nft", f"{table} add rule inet fault it {rule}")
    scene.for_seconds(seconds, lambda: _in_network(scene, host, "nft", "delete table inet fault"))
