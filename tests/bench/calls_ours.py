"""Outrider as bench-calls runs it: the one file that knows its interface. Breaker, deadline, metrics: all is on."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from calls_peers import Call, System, Told

from outrider.calls import Agent, Client
from outrider.calls.endpoint import socket_path
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.records import Entry, Instance

AGENT = "Bench"
TIMEOUT_S = 5.0


def instance(name: str, address: str, port: int) -> Instance:
    """As a catalogue lists it."""
    return Instance(AGENT, name, "host", address, port, {"call": port})


def publish(runtime: Path, instances: Sequence[Instance]) -> CatalogueWriter:
    """A catalogue of these alone; nobody confirms it afterwards."""
    runtime.mkdir(parents=True, exist_ok=True)
    writer = CatalogueWriter(runtime)
    writer.publish({AGENT: Entry(AGENT, tuple(instances))})
    return writer


def serve_agent(agent: Agent, told: Told, runtime: Path, host: str) -> None:
    """Serve until killed; what is told is the address for `client_of`."""
    agent.start()
    told(json.dumps({"runtime": str(runtime), "instance": agent.instance, "host": host, "port": agent.port}))
    while True:
        time.sleep(3600)


def _agent(host: str, folder: Path) -> Agent:
    socket = socket_path(folder / "run", f"{AGENT}-1") if host == "127.0.0.1" else None
    return Agent(AGENT, instance=f"{AGENT}-1", address=host, port=0, socket=socket)


def _coroutine(host: str, folder: Path, told: Told) -> None:
    agent = _agent(host, folder)

    @agent.method
    async def echo(**arguments: Any) -> dict[str, Any]:
        return arguments

    serve_agent(agent, told, folder / "run", host)


def _function(host: str, folder: Path, told: Told) -> None:
    agent = _agent(host, folder)

    @agent.method
    def echo(**arguments: Any) -> dict[str, Any]:
        return arguments

    serve_agent(agent, told, folder / "run", host)


def client_of(address: str) -> Client:
    """A client that finds the one instance by a catalogue."""
    found = json.loads(address)
    runtime = Path(found["runtime"])
    publish(runtime, [instance(found["instance"], found["host"], found["port"])]).close()
    return Client(runtime=runtime, caller="caller")


def _caller(address: str) -> Call:
    client = client_of(address)
    return lambda body: client.call(AGENT, "echo", body, timeout=TIMEOUT_S)


async def _async_caller(address: str) -> Callable[[Any], Awaitable[Any]]:
    client = client_of(address)
    return lambda body: client.acall(AGENT, "echo", body, timeout=TIMEOUT_S)


OURS = {
    "outrider": System(_coroutine, _caller, "array"),
    "outrider, method on a thread": System(_function, _caller, "array"),
    "outrider, acall": System(_coroutine, _async_caller, "array", twin=True),
}
