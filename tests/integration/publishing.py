"""What tests of publication share: small fleets for one host, and what Consul holds of them."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from integration.conftest import ConsulServer
from outrider.fleet.spec import Agent, Host
from outrider.migration.compile import Definition
from outrider.migration.overview import overview
from outrider.migration.publication import Order, Target
from outrider.registry.kv import list_docs
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, PlacementDoc

HOST = Host("local")


def an_agent(**keys: Any) -> Agent:
    return msgspec.convert({"command": ["sleep", "9"], **keys}, Agent)


def order(agents: dict[str, Agent], **keys: Any) -> Order:
    definition = Definition("test", agents, (HOST,))
    return Order(msgspec.to_builtins(definition), **{"wait_s": 10.0, **keys})


TWO = {"a": an_agent(count=2), "b": an_agent(needs=["a"])}


def documents(consul: ConsulServer) -> dict[str, Any]:
    """Every document without its index."""
    agents = list_docs(consul.client, FLEET, AgentDoc).docs
    placements = list_docs(consul.client, PLACEMENT, PlacementDoc).docs
    return {name: doc for docs in (agents, placements) for name, (doc, _) in docs.items()}


def wait_until_healthy(target: Target) -> None:
    deadline = time.monotonic() + 5
    while not overview(target).healthy:
        assert time.monotonic() < deadline
        time.sleep(0.05)
