"""Calls to each agent, of all hosts, as Prometheus has them."""

from __future__ import annotations

import http.client
import math
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from outrider.errors import OutriderError
from outrider.migration.risk.observed import Traffic

TIMEOUT_S = 5.0
RATE = "sum by (target) (rate(outrider_calls_total[5m]))"
CALLS = "sum by (target) (increase(outrider_calls_total[1d]))"
FAILED = 'sum by (target) (increase(outrider_calls_total{outcome!="ok"}[1d]))'
PEAK = f"max_over_time({RATE}[1d:5m])"
HOSTS = "count by (host) (outrider_instance_up)"


class _Series(Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(Struct):
    result: list[_Series]


class _Answer(Struct):
    data: _Data


class Prometheus:
    """The one at `address`, as http://witness:9090. Raises OutriderError if it cannot be asked."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OutriderError(f"{address!r} is no address of Prometheus", hint="as http://witness:9090")
        self._parts = parts
        self._address = address.rstrip("/")

    def traffic(self, agents: Iterable[str], hosts: set[str]) -> dict[str, Traffic]:
        """Of each agent. `hosts`: those whose shims it should know."""
        known = self._ask(HOSTS, "host")
        if not known:
            raise OutriderError(f"Prometheus at {self._address} knows no shim")
        lacking = sorted(hosts - known.keys())
        partial = f"Prometheus knows nothing of {', '.join(lacking)}" if lacking else ""
        rate, calls, failed, peak = (self._ask(query, "target") for query in (RATE, CALLS, FAILED, PEAK))
        source = f"Prometheus at {self._address}, the last 5 min"
        return {
            name: Traffic(
                rate.get(name, 0.0), calls.get(name, 0.0), failed.get(name, 0.0), source, partial, peak.get(name, 0.0)
            )
            for name in agents
        }

    def _ask(self, query: str, label: str) -> dict[str, float]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", f"{self._parts.path.rstrip('/')}/api/v1/query?{urlencode({'query': query})}")
            reply = connection.getresponse()
            body = reply.read()
            if reply.status != 200:
                raise OutriderError(f"Prometheus at {self._address} answers with {reply.status}")
            found = msgspec.json.decode(body, type=_Answer).data.result
            values = {each.metric[label]: float(each.value[1]) for each in found if label in each.metric}
        except (OSError, http.client.HTTPException, msgspec.MsgspecError, ValueError) as error:
            raise OutriderError(f"Prometheus at {self._address} cannot be asked: {error}") from error
        finally:
            connection.close()
        return {name: value for name, value in values.items() if math.isfinite(value)}
