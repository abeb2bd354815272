"""When one Consul agent may be restarted, and when it is back: as another server sees it, not as it says itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ansible.module_utils.consul_http import PAUSE_S, Consul, ConsulError, Servers

RENEW_S = 5.0


class Peer(NamedTuple):
    """A server in raft's configuration. `well`: alive in gossip and not behind, as autopilot saw it within 2 s."""

    name: str
    id: str
    voter: bool
    leader: bool
    well: bool


def peers_of(servers: Servers) -> list[Peer]:
    """Raises ConsulError, also while there is no leader."""
    rows = servers.get("operator/raft/configuration")["Servers"]
    health = {row["ID"]: row for row in (servers.get("operator/autopilot/health") or {}).get("Servers") or []}
    well = {id_: row["Healthy"] and row["SerfStatus"] == "alive" for id_, row in health.items()}
    return [Peer(r["Node"], r["ID"], r["Voter"], r["Leader"], well.get(r["ID"], False)) for r in rows]


def raft_of(server: Consul) -> tuple[str, dict[str, str]]:
    """Name, and raft's state as it says itself. Raises ConsulError."""
    answer = server.get("agent/self")
    return answer["Config"]["NodeName"], answer["Stats"]["raft"]


def why_no_leader(raft: dict[str, str]) -> str:
    """Pure. "" if the server follows a leader or leads."""
    follows = raft["state"] in ("Follower", "Leader") and raft["last_contact"] != "never"
    return "" if follows else f"it has no leader yet ({raft['state'].lower()})"


def following(servers: Servers) -> tuple[set[str], int]:
    """Names of the servers that follow or lead right now, and how many do not say so."""
    names = set()
    for server in servers.each:
        try:
            name, raft = raft_of(server)
        except ConsulError:
            continue
        if not why_no_leader(raft):
            names.add(name)
    return names, len(servers.each) - len(names)


def why_not_now(peers: list[Peer], node: str, listed: int, following: set[str], silent: int) -> str:
    """Pure. Why this server may not be restarted; "" if it may. `listed`: how many servers there shall be.

    What autopilot says may be 2 s old, so each is asked, too: a voter that does not follow may be one of the silent.
    """
    others = [peer for peer in peers if peer.voter and peer.name != node]
    ill = sorted(peer.name for peer in others if not peer.well or (silent and peer.name not in following))
    if ill:
        return f"of the voters {', '.join(ill)} are not well; mend them, or remove them with consul_member"
    # Autopilot may have taken a dead server's vote away, and then all the others are well.
    if (cost := outage(peers, node)) and listed > 2:
        return f"of {listed} servers only {', '.join(sorted(p.name for p in peers if p.voter))} vote: {cost}"
    return "" if any(peer.leader for peer in peers) else "no server leads"


def outage(peers: list[Peer], node: str) -> str:
    """Pure. What a restart costs where the other voters are no quorum; "" if it costs nothing."""
    voters = [peer for peer in peers if peer.voter]
    if node not in [peer.name for peer in voters] or len(voters) - 1 > len(voters) // 2:
        return ""
    return f"Consul takes no writes until {node} is back"


def why_server_is_not_back(own: Consul, others: Servers, node: str, index: int) -> str:
    """It follows a leader or leads, has applied all up to `index`, and another server counts it among the voters and
    finds it well. The first two are its own words, because autopilot may still show how it was before the restart.

    Raises ConsulError if one of them does not answer.
    """
    raft = raft_of(own)[1]
    if why := why_no_leader(raft):
        return why
    if int(raft["applied_index"]) < index:
        return f"it has applied {raft['applied_index']} of {index} log entries"
    peers = peers_of(others)
    found = [peer for peer in peers if peer.name == node]
    if not found or not found[0].voter:
        return "another server does not count it among the voters"
    if not found[0].well:
        return "another server does not find it well"
    return "" if any(peer.leader for peer in peers) else "no server leads"


def why_client_is_not_back(own: Consul, servers: Servers, node: str) -> str:
    """It reaches a server, and the servers find it alive. Raises ConsulError."""
    if not own.get("status/leader"):
        return "it knows no leader"
    checks = {check["CheckID"]: check["Status"] for check in servers.get(f"health/node/{node}")}
    return "" if checks.get("serfHealth") == "passing" else f"the servers find it {checks.get('serfHealth', 'missing')}"


def committed(others: Servers) -> int:
    """Index of the last log entry that another server knows to be committed. Raises ConsulError."""
    return int(others.get("agent/self")["Stats"]["raft"]["commit_index"])


def why_no_quorum(own: Consul, others: Servers) -> str:
    """Why a server that has just been started cannot have a leader yet; "" if it can. Raises ConsulError if it is down.

    A new cluster waits for all its servers, one that has been there for most of them.
    """
    known, up = set(own.get("status/peers")), 1
    for server in others.each:
        try:
            known |= set(server.get("status/peers"))
            up += 1
        except ConsulError:
            continue
    listed = 1 + len([server for server in others.each if server is not own])
    if known:
        needed = len(known) // 2 + 1
        return "" if up >= needed else f"{up} of {len(known)} servers run, and {needed} are needed for a leader"
    return "" if up >= listed else f"{up} of {listed} servers run, and a new cluster waits for all of them"


def wait(what: Callable[[], str], until: float, meanwhile: Callable[[], None]) -> str:
    """Until `what` says that nothing is missing; what is missing at the end, or "". Silence counts as missing."""
    renewed = time.monotonic()
    while True:
        try:
            missing = what()
        except ConsulError as error:
            missing = str(error)
        if not missing or time.monotonic() > until:
            return missing
        if time.monotonic() - renewed > RENEW_S:
            meanwhile()
            renewed = time.monotonic()
        time.sleep(PAUSE_S)
