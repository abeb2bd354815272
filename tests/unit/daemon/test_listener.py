"""The TCP listener with real TLS: who is let in, and how a renewed certificate takes over."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from authority import Authority
from outrider.daemon.listener import Listener
from outrider.errors import HostError
from outrider.host.config import HttpTls


class Served:
    """A listener on a free port, and clients of it."""

    runner: web.AppRunner | None = None

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "ca")
        self.client = self.authority.issue("client")
        self.tls = HttpTls(folder / "live-ca.pem", folder / "live.pem", folder / "live.key")
        self.put(self.authority, "server")
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]

    def put(self, authority: Authority, name: str) -> None:
        """Replace the files that the listener reads, one after the other, as a role does."""
        cert, key = authority.issue(name)
        for source, target in ((authority.file, "ca_file"), (cert, "cert_file"), (key, "key_file")):
            path = getattr(self.tls, target)
            shutil.copy(source, path.with_suffix(".new"))
            os.replace(path.with_suffix(".new"), path)

    def context(self, ca: Path | None = None, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=ca or self.authority.file)
        if client:
            context.load_cert_chain(*client)
        return context

    async def get(self, context: ssl.SSLContext | None) -> tuple[str, str]:
        """First line of the answer (empty if we are cut off), and the name in the server's certificate."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            line = (await reader.readline()).decode().strip()
            cert = writer.get_extra_info("peercert") or {}
            name = next((value for part in cert.get("subject", ()) for key, value in part), "")
            return line, name
        finally:
            writer.close()


async def answer(_: web.Request) -> web.Response:
    return web.Response(text="ok")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Served, Listener]]:
    made = Served(tmp_path)
    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    made.runner = runner
    listener = Listener(runner, "127.0.0.1", made.port, made.tls)
    await listener.start()
    yield made, listener
    await runner.cleanup()
    listener.close()


async def refused(served: Served, context: ssl.SSLContext | None) -> bool:
    try:
        line, _ = await served.get(context)
    except OSError:  # ssl.SSLError is one
        return True
    return line == ""


async def test_only_clients_of_the_ca_get_an_answer(served: tuple[Served, Listener], tmp_path: Path) -> None:
    host, _ = served
    assert await host.get(host.context(client=host.client)) == ("HTTP/1.0 200 OK", "server")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "ca").issue("client")
    assert await refused(host, host.context())
    assert await refused(host, host.context(client=stranger))
    assert await refused(host, None)


async def test_a_renewed_certificate_and_a_new_ca_take_over_without_a_gap(
    served: tuple[Served, Listener], tmp_path: Path
) -> None:
    host, listener = served
    await listener.renew()
    assert (await host.get(host.context(client=host.client)))[1] == "server"
    host.put(host.authority, "renewed")
    await listener.renew()
    assert await host.get(host.context(client=host.client)) == ("HTTP/1.0 200 OK", "renewed")

    (tmp_path / "next").mkdir()
    following = Authority(tmp_path / "next", "ca")
    client = following.issue("client")
    host.put(following, "successor")
    gets: list[tuple[str, str]] = []

    async def ask() -> None:
        for _ in range(20):
            gets.append(await host.get(host.context(ca=following.file, client=client)))

    await listener.renew()
    await ask()
    assert set(gets) == {("HTTP/1.0 200 OK", "successor")}
    assert await refused(host, host.context(ca=following.file, client=host.client))


async def test_connections_are_taken_while_one_certificate_follows_another(served: tuple[Served, Listener]) -> None:
    host, listener = served
    context = host.context(client=host.client)
    answered: asyncio.Queue[None] = asyncio.Queue()

    async def ask() -> None:
        while True:
            assert (await host.get(context))[0] == "HTTP/1.0 200 OK"
            answered.put_nowait(None)

    asking = asyncio.create_task(ask())
    for number in range(5):
        host.put(host.authority, f"number-{number}")
        await listener.renew()
        for _ in range(2):  # one may have begun before
            next_answer = asyncio.ensure_future(answered.get())
            await asyncio.wait((asking, next_answer), return_when=asyncio.FIRST_COMPLETED)
            assert not asking.done(), asking.exception()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert host.runner
    assert len(host.runner.sites) == 1  # none of the earlier ones goes on listening


async def test_files_that_do_not_fit_leave_the_earlier_ones_and_are_said_once(
    served: tuple[Served, Listener], caplog: pytest.LogCaptureFixture
) -> None:
    host, listener = served
    _, other_key = host.authority.issue("other")
    shutil.copy(other_key, host.tls.key_file)
    await listener.renew()
    await listener.renew()
    assert (await host.get(host.context(client=host.client)))[1] == "server"
    assert len([record for record in caplog.records if "cannot be used" in record.message]) == 1
    host.put(host.authority, "mended")
    await listener.renew()
    assert (await host.get(host.context(client=host.client)))[1] == "mended"


async def test_what_cannot_be_listened_on_or_read_is_named(tmp_path: Path) -> None:
    made = Served(tmp_path)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", made.port))
        taken.listen()
        with pytest.raises(HostError, match=f"127.0.0.1:{made.port}: Address already in use"):
            await Listener(runner, "127.0.0.1", made.port, made.tls).start()
    made.tls.key_file.unlink()
    with pytest.raises(HostError, match=r"live\.key"):
        await Listener(runner, "127.0.0.1", made.port, made.tls).start()
    await runner.cleanup()
