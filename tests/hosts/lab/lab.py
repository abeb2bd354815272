"""All hosts of one lab, and the file that says what there is: whatever happens, `down` finds everything by it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from hosts.lab import network
from hosts.lab.image import CHECKOUT, USER, image
from hosts.lab.machine import Machine

BOOT_S = 90.0


def default_folder() -> Path:
    """$OUTRIDER_LAB, else .lab in the checkout."""
    return Path(os.environ.get("OUTRIDER_LAB") or CHECKOUT / ".lab")


class Lab:
    """The lab that is kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.file = self.folder / "lab.json"

    @property
    def key(self) -> Path:
        """The operator's private key for ssh."""
        return self.folder / "key"

    def read(self) -> dict[str, object]:
        """What lab.json says; empty if there is no lab."""
        try:
            return json.loads(self.file.read_text())  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {}

    def machines(self) -> dict[str, Machine]:
        """Its hosts by name."""
        state = self.read()
        return {
            name: Machine(name, address, self.folder / "hosts" / name, state["bridge"], state["serial"])
            for name, address in state.get("hosts", {}).items()
        }

    def up(self, count: int) -> None:
        """Untouched hosts that answer by ssh. A lab that was there is removed first; a failed start leaves nothing."""
        root = image()
        self.down()
        # A signal ends the start as Ctrl-C does, through the `except` below.
        signal.signal(signal.SIGTERM, _interrupt)
        began = time.monotonic()
        try:
            self._describe(count)
            state = self.read()
            network.add_bridge(state["bridge"], state["gateway"])
            for machine in self.machines().values():
                self._prepare(machine)
                machine.start(root)
            self._write_known_hosts()
            self.wait(list(self.machines()))
        except BaseException:
            self.down()
            raise
        took = f"{time.monotonic() - began:.0f} s"
        print(f"lab: {', '.join(self.machines())} answer after {took}; inventory: inventories/lab", file=sys.stderr)

    def _describe(self, count: int) -> None:
        """Everything's name is written down before anything is made."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        subnet, serial = network.free_subnet(), secrets.token_hex(3)
        state = {
            "serial": f"or{serial}",
            "bridge": f"or{serial}",
            "gateway": str(subnet[1]),
            "user": USER,
            "hosts": {f"lab{n}": str(subnet[10 + n]) for n in range(1, count + 1)},
        }
        scratch = self.file.with_suffix(".tmp")
        scratch.write_text(json.dumps(state, indent=2))
        scratch.rename(self.file)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.key)], check=True)

    def _prepare(self, machine: Machine) -> None:
        hosts = {name: other.address for name, other in self.machines().items()}
        machine.prepare(hosts, self.key.with_suffix(".pub").read_text())

    def _write_known_hosts(self) -> None:
        lines = []
        for machine in self.machines().values():
            public = (machine.folder / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text()
            lines.append(f"{machine.address} {public}")
        (self.folder / "known_hosts").write_text("".join(lines))

    def start(self, name: str) -> None:
        """Boot a host that is off, and wait until it answers."""
        self.machines()[name].start(image())
        self.wait([name])

    def reboot(self, name: str) -> None:
        """Orderly, as `reboot` on the host does, and wait until it answers again."""
        machine = self.machines()[name]
        before = machine.leader()
        machine.run("systemctl", "reboot", "--no-block")
        until = time.monotonic() + BOOT_S
        while time.monotonic() < until:
            with contextlib.suppress(LookupError):
                if machine.leader() != before:
                    break
            time.sleep(0.1)
        self.wait([name])

    def rebuild(self, name: str) -> None:
        """The host is lost with its disk; an untouched one takes its name and address."""
        machine = self.machines()[name]
        machine.power_off()
        self._prepare(machine)
        machine.start(image())
        self._write_known_hosts()
        self.wait([name])

    def wait(self, names: list[str]) -> None:
        """Until each of them answers by ssh as the operator."""
        until = time.monotonic() + BOOT_S
        for name in names:
            while subprocess.run(
                [*self.ssh_command(name, "true", connect_s=2)], capture_output=True, check=False
            ).returncode:
                if time.monotonic() > until:
                    raise SystemExit(f"lab: {name} does not answer by ssh; {self._why(name)}")
                time.sleep(0.1)

    def _why(self, name: str) -> str:
        """What a host that does not answer has to say, past ssh."""
        try:
            errors = self.machines()[name].run("journalctl", "--boot", "--priority=warning", "--lines=40", check=False)
        except LookupError as error:
            return str(error)
        return f"warnings and errors of its journal:\n{errors}"

    def ssh_command(self, name: str, *words: str, connect_s: int = 10) -> list[str]:
        """The `ssh` that reaches a host, its key checked."""
        state = self.read()
        if name not in state.get("hosts", {}):
            raise SystemExit(f"lab: no host {name!r} in {self.file}; there are: {', '.join(state.get('hosts', {}))}")
        options = [f"-oUserKnownHostsFile={self.folder / 'known_hosts'}", "-oStrictHostKeyChecking=yes"]
        options += ["-oBatchMode=yes", f"-oConnectTimeout={connect_s}", "-oLogLevel=ERROR"]
        return ["ssh", "-F", "none", "-i", str(self.key), *options, f"{state['user']}@{state['hosts'][name]}", *words]

    def status(self) -> list[str]:
        """One line per host."""
        lines = []
        for name, machine in self.machines().items():
            lines.append(f"{name} {machine.address} {'runs' if machine.pids() else 'is off'}")
        return lines or ["there is no lab; `make lab-up` makes one"]

    def down(self) -> None:
        """No process, bridge or file of the lab is left; what another lab has is not touched."""
        state = self.read()
        for machine in self.machines().values():
            machine.power_off()
        if state:
            network.remove_bridge(str(state["bridge"]))
        shutil.rmtree(self.folder, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
