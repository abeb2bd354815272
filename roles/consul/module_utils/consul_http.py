"""Consul's HTTP API for modules that run on a host before anything is installed there: standard library only.

A token goes into a header and nowhere else; neither proxies nor redirects are followed, which would carry it away.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

TIMEOUT_S = 3.0
PAUSE_S = 0.2
MOST_BYTES = 64 * 1024 * 1024
# Consul 1.8 answers 500 also to what is wrong for good.
FOR_GOOD = re.compile(r"(?i)invalid|already|in use|parse|permitted|cannot")
Result = TypeVar("Result")


class ConsulError(Exception):
    """Which agent refused what, in its words. `status`: that of HTTP, 0 if there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later, or at another server: nobody answers, or there is no leader."""
        return not self.status or (self.status >= 500 and not FOR_GOOD.search(str(self)))


class Consul:
    """One agent. Methods raise ConsulError; `get` returns None for what is not there."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, token: str = "") -> None:
        self.url, self._tls, self._token = url.rstrip("/"), tls, token
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.username:
            raise ConsulError(f"{parts.scheme}://{parts.hostname}: not an address like https://HOST:8501")
        self._secure, self.host = parts.scheme == "https", parts.hostname
        self._port = parts.port or (8501 if self._secure else 8500)

    def get(self, path: str, **query: str) -> Any:
        try:
            return self.request("GET", path, None, query)
        except ConsulError as error:
            if error.status == 404:
                return None
            raise

    def put(self, path: str, body: Any = None, **query: str) -> Any:
        return self.request("PUT", path, body, query)

    def delete(self, path: str, **query: str) -> Any:
        return self.request("DELETE", path, None, query)

    def request(self, method: str, path: str, body: Any, query: dict[str, str], timeout_s: float = TIMEOUT_S) -> Any:
        """The answer's JSON, or its text. `path` starts behind /v1/."""
        shown = f"{self.url}: {method} /v1/{path}"
        target = f"/v1/{urllib.parse.quote(path)}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"X-Consul-Token": self._token} if self._token else {}
        connection = self._connection(timeout_s)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read(MOST_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise ConsulError(f"{shown}: {str(error) or type(error).__name__}") from None
        finally:
            connection.close()
        # Autopilot says 429 with its answer while a server is not well.
        if response.status != 200 and not (response.status == 429 and text.startswith("{")):
            said = text.strip().replace(self._token or "\0", "(token)")[:500]
            raise ConsulError(f"{shown}: {response.status} {said}", response.status)
        try:
            return json.loads(text)
        except ValueError:
            return text

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(self.host, self._port, timeout=timeout_s, context=self._tls)
        return http.client.HTTPConnection(self.host, self._port, timeout=timeout_s)


class Servers:
    """Servers of one cluster, of which the first that can answers. The one that did is asked first from then on."""

    def __init__(self, each: Iterable[Consul]) -> None:
        self.each = list(each)

    def get(self, path: str, **query: str) -> Any:
        return self._first(lambda server: server.get(path, **query))

    def put(self, path: str, body: Any = None, **query: str) -> Any:
        return self._first(lambda server: server.put(path, body, **query))

    def delete(self, path: str, **query: str) -> Any:
        return self._first(lambda server: server.delete(path, **query))

    def _first(self, call: Callable[[Consul], Result]) -> Result:
        errors: list[ConsulError] = []
        for server in list(self.each):
            try:
                result = call(server)
            except ConsulError as error:
                if not error.passing:
                    raise
                errors.append(error)
            else:
                self.each.sort(key=lambda one: one is not server)
                return result
        raise ConsulError("; ".join(map(str, errors)) or "no server to ask", max((e.status for e in errors), default=0))


def connect(params: dict[str, Any]) -> Servers:
    """From a module's arguments servers, ca_file, cert_file, key_file and management_token. Raises ConsulError."""
    tls = None
    if any(url.startswith("https:") for url in params["servers"]):
        tls = tls_context(params["ca_file"], params["cert_file"], params["key_file"])
    return Servers(Consul(url, tls, params["management_token"] or "") for url in params["servers"])


def tls_context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """Trusts that CA alone, if it is given, and shows the certificate to who asks for it. Raises ConsulError."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert_file:
            context.load_cert_chain(cert_file, key_file)
    except OSError as error:  # which ssl.SSLError is, too
        raise ConsulError(f"{ca_file}, {cert_file}, {key_file}: {error}") from None
    return context


def retry(call: Callable[[], Result], deadline: float, also: str = "\0") -> Result:
    """What `call` returns once nothing passing hinders it any more; `also`: words of a further error that passes.

    `deadline` is on time.monotonic; the last error is raised after it.
    """
    while True:
        try:
            return call()
        except ConsulError as error:
            if not (error.passing or also in str(error)) or time.monotonic() >= deadline:
                raise
        time.sleep(PAUSE_S)


def unpack(entry: dict[str, Any]) -> Any:
    """The JSON in an entry of the key-value store; None if there is none."""
    try:
        return json.loads(base64.b64decode(entry["Value"] or ""))
    except ValueError:
        return None
