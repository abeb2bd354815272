"""The restart of one Consul agent, as one unit: lock, gate, restart, gate, or the way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils import known_good, raft_gate
from ansible.module_utils.applied import is_applied
from ansible.module_utils.consul_http import Consul, ConsulError, Servers, connect
from ansible.module_utils.restart_lock import RestartLock

Run = Callable[[list[str]], tuple[int, str, str]]
Meanwhile = Callable[[], None]
NO_QUORUM = "It waits for others: "


class Failed(Exception):
    """What went wrong, what runs now, and what to look at."""


class Restart:
    """Of the agent that the module's arguments name. `notes`: what whoever runs it should know."""

    def __init__(self, params: Mapping[str, Any], run: Run) -> None:
        self._params, self._run = params, run
        self._service: str = params["service"]
        self._inputs: list[str] = params["inputs"]
        self._node: str = params["node"]
        self._good = Path(params["good_folder"])
        self._server = bool(params["own_server"])
        # Without a token: while Consul does not run, anybody may listen there.
        self._own = Consul(params["own"])
        self.notes: list[str] = []
        self.state = self._state()

    def pending(self) -> str:
        """What is to be done: start, restart, none, or confirm: no run has seen it come back with what is there."""
        if self.state not in ("active", "activating", "reloading"):
            return "start"
        if not is_applied(self._params["applied_file"], self._inputs):
            return "restart"
        return "none" if known_good.are_kept(self._inputs, self._good) else "confirm"

    def run(self) -> str:
        """Do it, and say what was done: the same words, or skip. Raises ConsulError, Failed."""
        action = self.pending()
        self._connect()
        if action == "none":
            if why := raft_gate.wait(self._silent, time.monotonic() + self._params["timeout_s"], lambda: None):
                raise Failed(f"{self._service} runs with what is there, and does not answer: {why}. {self._hint()}")
        elif action == "confirm":
            self._turn(lambda: None, strict=False, restart=False)
        elif action == "start" or self._params["force"] or not self._cluster():
            self._turn(lambda: None, strict=False)
        else:
            return self._restart_if_spared()
        return action

    def _connect(self) -> None:
        own_url = self._params["own_server"].rstrip("/")
        every = connect({**self._params, "servers": [*self._params["servers"], *([own_url] if own_url else [])]}).each
        others = [server for server in every if server.url != own_url]
        self._others = Servers(others or every[-1:])
        self._own_server = every[-1]

    def _restart_if_spared(self) -> str:
        wait_s, timeout_s = self._params["lock_wait_s"], self._params["timeout_s"]
        with RestartLock(self._others, self._params["operator"], self._node, wait_s) as lock:
            if self._server:
                if why := raft_gate.wait(self._why_not_now, time.monotonic() + timeout_s, lock.renew):
                    raise Failed(f"not restarted: {why}. What runs goes on; then run this again.")
                peers = raft_gate.peers_of(self._others)
                if self._params["leader"] == "skip" and any(p.leader and p.name == self._node for p in peers):
                    return "skip"
                self.notes += [cost] if (cost := raft_gate.outage(peers, self._node)) else []
            if not lock.is_held():
                raise Failed("not restarted: the lock was lost meanwhile. What runs goes on; run this again.")
            try:
                self._turn(lock.renew, strict=True)
            except Failed:
                lock.mark_failed()
                raise
        return "restart"

    def _why_not_now(self) -> str:
        peers = raft_gate.peers_of(self._others)
        listed = len(self._others.each) + (self._own_server not in self._others.each)
        return raft_gate.why_not_now(peers, self._node, listed, *raft_gate.following(self._others))

    def _turn(self, meanwhile: Meanwhile, strict: bool, restart: bool = True) -> None:
        """Restart and wait, or go back. `strict`: it must have a leader at the end."""
        try:
            if restart:
                self._restart_unit()
            self._come_back(meanwhile, strict, self._params["timeout_s"])
        except Failed as error:
            raise Failed(f"{error} {self._go_back(meanwhile, strict)} {self._hint()}") from None

    def _restart_unit(self) -> None:
        if command := self._params["restart_command"]:
            self._call(command)
        else:
            self._call(["systemctl", "daemon-reload"])
            self._call(["systemctl", "enable", self._service])
            self._call(["systemctl", "restart", self._service])

    def _come_back(self, meanwhile: Meanwhile, strict: bool, timeout_s: float) -> None:
        """Wait until it is back, and remember the files that it came back with. Raises Failed."""
        index: list[int] = []
        lonely = ""

        def missing() -> str:
            nonlocal lonely
            lonely = "" if strict else self._lonely()
            if lonely:
                return ""
            if not self._server:
                return raft_gate.why_client_is_not_back(self._own, self._others, self._node)
            if not index:
                index.append(raft_gate.committed(self._others))
            return raft_gate.why_server_is_not_back(self._own_server, self._others, self._node, index[0])

        if why := raft_gate.wait(missing, time.monotonic() + timeout_s, meanwhile):
            raise Failed(f"it did not come back within {timeout_s:g} s: {why}.")
        if lonely:
            self.notes.append(NO_QUORUM + lonely)
        elif is_applied(self._params["applied_file"], self._inputs):
            known_good.keep(self._inputs, self._good)

    def _go_back(self, meanwhile: Meanwhile, strict: bool) -> str:
        """Put the known good files back; what to say about it."""
        changed = known_good.put_back(self._inputs, self._good)
        if not changed:
            return "There is no other configuration that it came up with before, so it was left as it is."
        try:
            self._restart_unit()
            # The leader asks a server that was away the less often the longer it was: up to twice as long.
            self._come_back(meanwhile, strict, 3 * self._params["timeout_s"])
        except Failed as error:
            return f"The previous files are in place again ({', '.join(changed)}), and with them too {error}"
        return f"The previous configuration is running again ({', '.join(changed)})."

    def _lonely(self) -> str:
        """Why there can be no leader yet. Raises ConsulError if the agent itself is down."""
        if self._server:
            return raft_gate.why_no_quorum(self._own_server, self._others)
        self._silent()
        return "" if self._leader() else "no server has a leader"

    def _leader(self) -> str:
        try:
            return str(self._others.get("status/leader"))
        except ConsulError:
            return ""

    def _cluster(self) -> bool:
        """Whether there is one yet: some server knows of servers, if it leads them or not."""
        for server in (*self._others.each, self._own_server):
            try:
                if server.get("status/peers"):
                    return True
            except ConsulError:
                continue
        return False

    def _silent(self) -> str:
        """Raises ConsulError if the agent does not answer. That it knows no leader is an answer."""
        try:
            self._own.get("status/leader")
        except ConsulError as error:
            if not error.status:
                raise
        return ""

    def _state(self) -> str:
        if not self._params["restart_command"]:
            return self._run(["systemctl", "is-active", self._service])[1].strip() or "unknown"
        try:
            return self._silent() or "active"
        except ConsulError:
            return "inactive"

    def _hint(self) -> str:
        return f"See `journalctl -u {self._service} -n 50`, mend it, and run the same again with --limit {self._node}."

    def _call(self, command: list[str]) -> None:
        status, _, errors = self._run(command)
        if status:
            raise Failed(f"{' '.join(command)}: {errors.strip() or status}.")
