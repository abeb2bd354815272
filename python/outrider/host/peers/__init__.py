"""Shim to shim, past Consul: heartbeats, news of deaths and questions, in small authenticated datagrams.

Peers may only take instances out of routing and put them back; what cannot be undone is Consul's to decide.
"""

from __future__ import annotations

from outrider.host.peers.key import next_start, read_key
from outrider.host.peers.news import NO_EVIDENCE, Evidence
from outrider.host.peers.peers import Peers

__all__ = ["NO_EVIDENCE", "Evidence", "Peers", "next_start", "read_key"]
