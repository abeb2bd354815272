"""Takes a node out of a Consul cluster for good: its vote, its place in gossip, its rows in the catalog."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ansible.module_utils.consul_http import PAUSE_S, ConsulError, Servers, connect, retry
from ansible.module_utils.raft_gate import Peer, peers_of, raft_of

ALIVE, LEFT = 1, 3
# Leaving, a server waits for its vote to be taken away and for requests to end.
LEAVE_S = 30.0
# A new leader finds nobody well until it has looked, every 2 s.
SETTLE_S = 3.0
Run = Callable[[list[str]], tuple[int, str, str]]


class Refused(Exception):
    """Why the node stays, and what to do."""


class Traces(NamedTuple):
    """What the other servers still have of a node."""

    peer: Peer | None
    gossip: bool
    alive: bool
    catalog: bool


class Membership:
    """Of one node, as the other servers see it. Methods raise ConsulError, and Refused."""

    def __init__(self, params: Mapping[str, Any], run: Run) -> None:
        self._params, self._run, self._node = params, run, params["node"]
        self._deadline = time.monotonic() + params["timeout_s"]
        every = connect(dict(params)).each
        names = {server.url: _name(server) for server in every}
        self._own = [server for server in every if names[server.url] == self._node]
        self._others = Servers(server for server in every if server not in self._own)
        if not self._others.each:
            raise Refused(f"{self._node} is the only server; there would be no cluster left")

    def remove(self, check_mode: bool) -> list[str]:
        """What was done, or in check mode would be."""
        traces = retry(self._traces, self._deadline)
        steps = [*self._down(traces), *_steps(traces)]
        if not steps or check_mode:
            return steps
        self._refuse_loss_of_quorum(traces)
        if traces.alive and self._params["leave"]:
            self._leave(traces)
        while traces.alive and time.monotonic() < self._deadline:  # gossip takes moments to see that it went
            time.sleep(PAUSE_S)
            traces = retry(self._traces, self._deadline)
        if traces.alive:
            raise Refused(
                f"{self._node} is alive; stop Consul there (systemctl disable --now {self._params['service']}) and run "
                "this again, or run it there with leave"
            )
        while _steps(traces):
            if time.monotonic() > self._deadline:
                raise Refused(f"the servers still have {self._node}: {', '.join(_steps(traces))} had no effect")
            retry(partial(self._erase, traces), self._deadline)
            time.sleep(PAUSE_S)
            traces = retry(self._traces, self._deadline)
        return steps

    def _traces(self) -> Traces:
        """Gossip as every server that answers has it: they forget one after the other."""
        rows, answers = [], 0
        for server in self._others.each:
            try:
                rows += [row for row in server.get("agent/members") if row["Name"] == self._node]
                answers += 1
            except ConsulError as error:
                if not error.passing:
                    raise
        peers = {peer.name: peer for peer in self._peers()}
        gossip = any(self._params["prune"] or row["Status"] != LEFT for row in rows)
        catalog = bool(self._others.get(f"catalog/node/{self._node}"))
        return Traces(peers.get(self._node), gossip, any(row["Status"] == ALIVE for row in rows), catalog)

    def _down(self, traces: Traces) -> list[str]:
        if not (traces.alive and self._params["leave"]):
            return []
        return ["leave", "stop"] if traces.peer else ["stop"]

    def _refuse_loss_of_quorum(self, traces: Traces) -> None:
        if not (traces.peer and traces.peer.voter) or self._params["force"]:
            return
        until = time.monotonic() + SETTLE_S
        while True:
            rest = [peer for peer in retry(self._peers, self._deadline) if peer.voter and peer.name != self._node]
            well = [peer.name for peer in rest if peer.well]
            if len(well) > len(rest) // 2:
                return
            if time.monotonic() > until:
                break
            time.sleep(PAUSE_S)
        raise Refused(
            f"without {self._node} there are {len(rest)} voters, of which {len(well)} are well "
            f"({', '.join(well) or 'none'}): no quorum. Mend or add servers first, or give force"
        )

    def _peers(self) -> list[Peer]:
        return peers_of(self._others)

    def _leave(self, traces: Traces) -> None:
        """Runs on the host itself. Stopped at once after it left, for its unit would start it again."""
        if traces.peer:
            if not self._own:
                raise Refused(f"{self._node} is not among the servers given, so it cannot be asked to leave")
            self._own[0].request("PUT", "agent/leave", None, {}, LEAVE_S)
        command = self._params["stop_command"] or ["systemctl", "disable", "--now", self._params["service"]]
        status, _, errors = self._run(command)
        if status:
            raise Refused(f"{' '.join(command)}: {errors.strip() or status}")
        self._deadline = time.monotonic() + self._params["timeout_s"]

    def _erase(self, traces: Traces) -> None:
        if traces.peer:
            self._others.delete("operator/raft/peer", id=traces.peer.id)
        if traces.gossip:
            self._others.put(f"agent/force-leave/{self._node}", **({"prune": ""} if self._params["prune"] else {}))
        if traces.catalog:
            self._others.put("catalog/deregister", {"Node": self._node})


def _steps(traces: Traces) -> list[str]:
    """Pure: what is to be erased."""
    each = {"remove from raft": traces.peer, "remove from gossip": traces.gossip, "deregister": traces.catalog}
    return [step for step, there in each.items() if there]


def _name(server: Any) -> str:
    try:
        return raft_of(server)[0]
    except ConsulError as error:
        if not error.passing:
            raise
        return ""
