"""The systems that bench-calls compares: each serves an echo, and connects to one.

Peers are given what helps them: connections kept, uvloop, Pyro5 with msgpack instead of its text format.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

Call = Callable[[Any], Any]
Told = Callable[[str], None]

FLOATS = 8192
WORKERS = 16


class System(NamedTuple):
    """`serve(host, folder, told)` blocks, telling its address once it can be called; `connect(address)` is a caller's.

    kind: how 32 KiB of float32 travel: `array`, `list` or `bytes`
    unix: its address is a Unix socket, so that it serves its own host only
    shared: what `connect` gives is for all threads of a process
    twin: `connect` is a coroutine function on the callers' loop and gives coroutine functions
    """

    serve: Callable[[str, Path, Told], None]
    connect: Callable[[str], Any]
    kind: str = "list"
    unix: bool = False
    shared: bool = True
    twin: bool = False


def arguments(payload: str, kind: str) -> dict[str, Any]:
    """What a call carries."""
    if payload == "300 B":
        return {
            "session": "b7e1c5d2-4f60-4a8e-9d13-5c2f6a7b",
            "text": "x" * 170,
            "k": 5,
            "scores": [0.5, 0.25, 1.0],
        }
    vector = np.arange(FLOATS, dtype=np.float32) / 7
    return {"vec": {"array": lambda: vector, "list": vector.tolist, "bytes": vector.tobytes}[kind]()}


# --- ZeroMQ REQ/REP


def zmq_server(scheme: str) -> Callable[[str, Path, Told], None]:
    def serve(host: str, folder: Path, told: Told) -> None:
        import zmq

        sock = zmq.Context.instance().socket(zmq.REP)
        if scheme == "tcp":
            told(f"tcp://{host}:{sock.bind_to_random_port(f'tcp://{host}')}")
        else:
            sock.bind(f"ipc://{folder}/zmq")
            told(f"ipc://{folder}/zmq")
        while True:
            sock.send_json(sock.recv_json())

    return serve


def zmq_caller(address: str) -> Call:
    import zmq

    sock = zmq.Context.instance().socket(zmq.REQ)
    sock.connect(address)

    def call(body: Any) -> Any:
        sock.send_json(body)
        return sock.recv_json()

    return call


# --- HTTP with JSON: aiohttp's server, three clients


def http_server(host: str, folder: Path, told: Told) -> None:
    from aiohttp import web

    async def echo(request: web.Request) -> web.Response:
        return web.json_response(await request.json())

    async def main() -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/", echo)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        told(f"http://{host}:{runner.addresses[0][1]}/")
        await asyncio.Event().wait()

    uvloop.run(main())


def requests_caller(address: str) -> Call:
    import requests

    session = requests.Session()
    session.trust_env = False  # otherwise it looks for proxies in the environment with each call
    return lambda body: session.post(address, json=body).json()


def httpx_caller(address: str) -> Call:
    import httpx

    client = httpx.Client(trust_env=False)
    return lambda body: client.post(address, json=body).json()


async def aiohttp_caller(address: str) -> Callable[[Any], Awaitable[Any]]:
    import aiohttp

    session = aiohttp.ClientSession()

    async def call(body: Any) -> Any:
        async with session.post(address, json=body) as reply:
            return await reply.json()

    return call


# --- gRPC, without generated classes: the message is the caller's own bytes


def _packed(body: dict[str, Any]) -> bytes:
    vector = body.get("vec")
    return vector if vector is not None else json.dumps(body).encode()


def _unpacked(data: bytes) -> Any:
    return data if len(data) >= FLOATS else json.loads(data)


def grpc_server(host: str, folder: Path, told: Told) -> None:
    import grpc

    server = grpc.server(ThreadPoolExecutor(WORKERS))
    echo = grpc.unary_unary_rpc_method_handler(lambda data, _: _packed_again(data))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": echo}),))
    port = server.add_insecure_port(f"{host}:0")
    server.start()
    told(f"{host}:{port}")
    server.wait_for_termination()


def _packed_again(data: bytes) -> bytes:
    body = _unpacked(data)
    return body if isinstance(body, bytes) else _packed(body)


def grpc_caller(address: str) -> Call:
    import grpc

    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    echo = channel.unary_unary("/bench.Echo/Echo")
    return lambda body: _unpacked(echo(_packed(body)))


# --- Pyro5


def pyro_server(host: str, folder: Path, told: Told) -> None:
    import Pyro5.api

    class Echo:
        @Pyro5.api.expose  # type: ignore[misc]
        def echo(self, body: Any) -> Any:
            return body

    daemon = Pyro5.api.Daemon(host=host)
    told(str(daemon.register(Echo)))
    daemon.requestLoop()


def pyro_caller(address: str) -> Call:
    import Pyro5.api

    Pyro5.config.SERIALIZER = "msgpack"
    proxy = Pyro5.api.Proxy(address)

    def call(body: Any) -> Any:
        proxy._pyroClaimOwnership()  # which thread has it: a comparison and an assignment
        return proxy.echo(body)

    return call


REFERENCE = "zmq REQ/REP + JSON"  # what the reference fleet does today

PEERS = {
    REFERENCE: System(zmq_server("tcp"), zmq_caller, shared=False),
    f"{REFERENCE}, ipc": System(zmq_server("ipc"), zmq_caller, unix=True, shared=False),
    "grpcio": System(grpc_server, grpc_caller, "bytes"),
    "Pyro5": System(pyro_server, pyro_caller, "bytes", shared=False),
    "aiohttp + JSON": System(http_server, aiohttp_caller, twin=True),
    "requests + JSON": System(http_server, requests_caller, shared=False),
    "httpx + JSON": System(http_server, httpx_caller),
}
