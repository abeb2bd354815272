"""One lab host: an overlay on the image, booted by systemd-nspawn; started, killed, frozen and wiped at will.

The overlay is mounted in a mount namespace of the host's own, so that it goes when the host's last process does:
nothing is left to unmount, whatever ends the host or the program that started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from hosts.lab.image import USER, USER_ID

# 133 is how systemd-nspawn says that the host wants to be booted again.
BOOT = """
echo $$ >"$1/pid"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
shift 2
while :; do
    status=0
    systemd-nspawn "$@" || status=$?
    [ "$status" -eq 133 ] || exit "$status"
done
"""
STOP_S = 10.0


class Machine(NamedTuple):
    """A host of the lab. `folder` holds its disk and its log; `serial` tells it from every other lab's."""

    name: str
    address: str
    folder: Path
    bridge: str
    serial: str

    def prepare(self, subnet_hosts: dict[str, str], authorized_key: str) -> str:
        """An untouched disk: identity, address and keys. Returns the host's public key."""
        self.wipe()
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True, mode=0o755)
        key = self.folder / "upper" / "etc" / "ssh" / "ssh_host_ed25519_key"
        names = "".join(f"{address} {name}\n" for name, address in subnet_hosts.items())
        self._write("etc/hostname", f"{self.name}\n")
        self._write("etc/hosts", f"127.0.0.1 localhost\n{names}")
        self._write("etc/machine-id", f"{uuid.uuid4().hex}\n")
        self._write("etc/systemd/network/10-lab.network", _network(self.address))
        self._write(f"home/{USER}/.ssh/authorized_keys", authorized_key)
        for path in (home := self.folder / "upper" / "home" / USER), home / ".ssh", home / ".ssh" / "authorized_keys":
            os.chown(path, USER_ID, USER_ID)
        key.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key)], check=True)
        return key.with_suffix(".pub").read_text()

    def _write(self, name: str, text: str) -> None:
        path = self.folder / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, image: Path) -> None:
        """Boot it; returns at once."""
        options = ["--directory", str(self.folder / "root"), "--boot", "--register=no", "--keep-unit", "--quiet"]
        options += [
            f"--network-bridge={self.bridge}",
            f"--machine={self.serial}-{self.name}",
            f"--hostname={self.name}",
        ]
        options += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--notify-ready=no"]
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", BOOT, "sh"]
        with open(self.folder / "console.log", "ab") as log:
            subprocess.Popen(
                [*command, str(self.folder), str(image), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_LOCK": "0"},
            )

    def pids(self) -> list[int]:
        """The loop that boots it, systemd-nspawn and the host's own first process, as far as they live."""
        found: list[int] = []
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / "pid").read_text())
            if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
                while len(found) < 3 and (children := _children(found[-1])):
                    found.append(children[0])
        return found

    def leader(self) -> int:
        """Process id, on this machine, of the host's systemd. Raises LookupError if it does not run."""
        pids = self.pids()
        if len(pids) < 3:
            raise LookupError(f"{self.name} does not run; {self.folder / 'console.log'} may say why")
        return pids[2]

    def power_off(self) -> None:
        """As pulling the plug: every process of it is killed at once, and no connection is closed in good order."""
        pids = self.pids()
        if len(pids) == 3:
            # Also because sockets with unsent data outlive their processes, and with them the link and its name.
            link = ["nsenter", "--target", str(pids[2]), "--net", "--", "ip", "link", "delete", "host0"]
            subprocess.run(link, check=False, capture_output=True)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + STOP_S
        while left := [pid for pid in pids if _lives(pid)]:
            if time.monotonic() > until:
                raise SystemExit(f"lab: {self.name} does not end: processes {left}")
            time.sleep(0.02)

    def wipe(self) -> None:
        """Its disk is gone."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside as root, without ssh; its output. Raises CalledProcessError."""
        inside = ["nsenter", "--target", str(self.leader()), "--all", "--", *command]
        return subprocess.run(inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check).stdout


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _network(address: str) -> str:
    return (
        f"[Match]\nName=host0\n[Network]\nAddress={address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        "[Link]\nRequiredForOnline=no\n"
    )
