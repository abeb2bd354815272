"""The shim's TCP listener: in the clear on loopback, else TLS for clients with a certificate of the fleet's CA.

A renewed certificate is used without a restart: when a file changes, a second listener with the new files takes over
the same socket. Connections that are open stay as they are.
"""

from __future__ import annotations

import logging
import socket
import ssl

from aiohttp import web

from outrider.errors import HostError
from outrider.host.config import HttpTls

log = logging.getLogger("outrider.shim")

Stamps = tuple[tuple[int, int], ...]


class Listener:
    """Serves one application on one address."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, tls: HttpTls | None) -> None:
        self._runner = runner
        self._where = (host, port)
        self._tls = tls
        self._stamps: Stamps = ()
        self._socket: socket.socket | None = None
        self._site: web.SockSite | None = None

    async def start(self) -> None:
        """Listen. Raises HostError if the address cannot be had or the certificate not be used."""
        self._stamps = _stamps(self._tls)
        context = _context(self._tls)
        try:
            self._socket = _bound(*self._where)
        except OSError as error:
            host, port = self._where
            raise HostError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="set another http_port"
            ) from error
        await self._serve(context)

    async def renew(self) -> None:
        """Use the certificate's files as they are now, if they changed. Bad ones are said once and not used."""
        if self._tls is None or self._socket is None:
            return
        stamps = _stamps(self._tls)
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            context = _context(self._tls)
        except HostError as error:
            log.warning("the certificate changed and cannot be used; the earlier one stays: %s", error.message)
            return
        before = self._site
        await self._serve(context)
        if before:
            await before.stop()
        log.info("the certificate changed: new connections get %s", self._tls.cert_file)

    def close(self) -> None:
        """Give the address back. The application's runner ends the connections."""
        if self._socket:
            self._socket.close()

    async def _serve(self, context: ssl.SSLContext | None) -> None:
        assert self._socket
        # Each site closes its socket when it stops, so each gets a copy of ours.
        self._site = web.SockSite(self._runner, self._socket.dup(), ssl_context=context)
        await self._site.start()


def _bound(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)  # said here too, so that no connection is refused between two sites
    except OSError:
        sock.close()
        raise
    return sock


def _context(tls: HttpTls | None) -> ssl.SSLContext | None:
    """Refuses every client without a certificate of the CA."""
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(tls.ca_file)
        context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        files = f"{tls.ca_file}, {tls.cert_file}, {tls.key_file}"
        raise HostError(f"[http_tls] {files}: {error}", hint="the role `outrider` brings them: run site.yml") from error
    return context


def _stamps(tls: HttpTls | None) -> Stamps:
    """What changes when a file is replaced or written; zeros for one that is not there."""
    found = []
    for path in (tls.ca_file, tls.cert_file, tls.key_file) if tls else ():
        try:
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_ino))
        except OSError:
            found.append((0, 0))
    return tuple(found)
