"""The fleet on a lab, as an operator sees it: playbooks, commands on hosts, Consul's API."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

T = TypeVar("T")
PLAY_S = 900.0


class Played(NamedTuple):
    """What ansible-playbook said. `changed`: tasks that changed something, over all hosts."""

    status: int
    output: str
    changed: int
    seconds: float


class Fleet:
    """Drives one lab. `first` is the run that made the fleet."""

    first: Played

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def play(self, playbook: str, *options: str, **variables: Any) -> Played:
        """Run a playbook to its end."""
        began = time.monotonic()
        process = self.start_play(playbook, *options, **variables)
        output, _ = process.communicate(timeout=PLAY_S)
        changed = sum(int(count) for count in re.findall(r"changed=(\d+)", output))
        return Played(process.returncode, output, changed, time.monotonic() - began)

    def start_play(self, playbook: str, *options: str, **variables: Any) -> subprocess.Popen[str]:
        """Start a playbook; the caller waits for it or kills it."""
        command = [sys.executable, "-m", "ansible", "playbook", "-i", "inventories/lab", f"playbooks/{playbook}"]
        if variables:
            command += ["-e", json.dumps(variables)]
        environment = {**os.environ, "ANSIBLE_HOME": str(self.lab.folder / "ansible"), "ANSIBLE_NOCOLOR": "1"}
        environment["ANSIBLE_CACHE_PLUGIN_CONNECTION"] = str(self.lab.folder / "facts")
        return subprocess.Popen(
            [*command, *options],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def kill_play(self, process: subprocess.Popen[str]) -> None:
        """As a closed laptop: the playbook and its connections are gone at once."""
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def on(self, host: str, command: str, check: bool = True) -> str:
        """Run a shell command on a host as root; its output."""
        return self.lab.machines()[host].run("sh", "-c", command, check=check)

    def put(self, host: str, path: str, text: str) -> None:
        """Write a file on a host, for root alone; its content is in no command line."""
        inside = ["nsenter", "--target", str(self.lab.machines()[host].leader()), "--all", "--"]
        subprocess.run([*inside, "sh", "-c", f"umask 077; cat >{path}"], input=text, text=True, check=True)

    def secrets(self) -> Path:
        """The controller's folder of secrets."""
        return self.lab.folder / "secrets"

    def tokens(self) -> dict[str, Any]:
        """What tokens.json holds."""
        return json.loads((self.secrets() / "tokens.json").read_text())  # type: ignore[no-any-return]

    def consul(
        self, host: str, path: str, *options: str, token: str = "", method: str = "GET", data: Any = None
    ) -> Any:
        """Ask the Consul agent of a host, as root on it would; (HTTP status, what it said)."""
        token = token or self.tokens()["management"]["secret"]
        body = ["--data", json.dumps(data)] if data is not None else []
        words = ["curl", "-s", "-m", "10", "-X", method, "-w", r"\n%{http_code}", *options, *body]
        words += [f"http://127.0.0.1:8500/v1/{path}"]
        self.put(host, "/root/.header", f"X-Consul-Token: {token}")
        command = shlex.join([*words, "-H", "@/root/.header"])
        text, _, status = self.on(host, command).rpartition("\n")
        try:
            return int(status), json.loads(text)
        except ValueError:
            return int(status), text

    def status(self, host: str = "lab1") -> dict[str, Any]:
        """`outrider status --json` on a host."""
        return json.loads(self.on(host, "outrider status --json", check=False))  # type: ignore[no-any-return]

    def passing(self, host: str = "lab1") -> int:
        """Instances that pass, as one host sees the whole fleet."""
        try:
            return int(self.status(host)["summary"]["passing"])
        except (ValueError, KeyError, LookupError, subprocess.CalledProcessError):
            return -1

    def wait_well(self, within_s: float = 90.0) -> float:
        """Until every host sees all 77 instances passing; how long that took, in seconds."""
        began = time.monotonic()
        until(lambda: all(self.passing(name) == 77 for name in self.lab.machines()), within_s, self.what_is_wrong)
        return time.monotonic() - began

    def what_is_wrong(self) -> str:
        """For a failed test's message."""
        return "\n".join(f"{name}: {self.on(name, 'outrider doctor', check=False)}" for name in self.lab.machines())


def until(condition: Callable[[], T], within_s: float, otherwise: Callable[[], str] = lambda: "") -> T:
    """Wait until it is true; what it then was. Fails with what `otherwise` says."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {within_s:g} s. {otherwise()}"
        time.sleep(0.1)
    return found
