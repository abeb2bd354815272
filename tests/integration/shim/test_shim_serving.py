"""What a running shim tells the outside: systemd that it lives, Prometheus where the fleet's shims are, over TLS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from authority import Authority

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)


def targets(host: ShimHost) -> dict[str, tuple[str, str]]:
    """Host to target and scheme, as /sd lists them."""
    try:
        groups = json.loads(host.request("GET", "/sd"))
    except subprocess.CalledProcessError:
        return {}
    assert {group["labels"]["fleet"] for group in groups} == {"test"}
    return {group["labels"]["host"]: (*group["targets"], group["labels"]["__scheme__"]) for group in groups}


def another_host(host: ShimHost, name: str, fleet: str = "test") -> None:
    """Register the shim of another host, as its own Consul agent would."""
    meta = {"fleet": fleet, "host": name, "scheme": "https"}
    service = {"ID": "outrider-shim", "Service": "outrider-shim", "Address": "10.0.0.2", "Port": 9321, "Meta": meta}
    body = {"Node": name, "Address": "10.0.0.2", "Service": service}
    host.consul.client.put("/v1/catalog/register", json.dumps(body).encode())


def test_prometheus_finds_the_shims_of_all_hosts(host: ShimHost) -> None:
    here = {"local": (f"127.0.0.1:{host.port}", "http")}
    host.start()
    host.wait(lambda: targets(host) == here)
    host.wait(lambda: "outrider-shim" in host.services())
    another_host(host, "gpu2")
    another_host(host, "alien", fleet="another")
    both = here | {"gpu2": ("10.0.0.2:9321", "https")}
    host.wait(lambda: targets(host) == both)
    host.consul.stop()
    assert targets(host) == both
    host.end(signal.SIGKILL)
    host.start()
    host.wait(lambda: targets(host) == here)
    host.consul.start()
    host.consul.client.put("/v1/catalog/deregister", b'{"Node": "alien"}')
    host.wait(lambda: targets(host) == both)


def test_a_shim_is_registered_once_and_goes_with_its_host(host: ShimHost) -> None:
    host.start()
    host.wait(lambda: host.registered().get("outrider-shim") == ("passing", "ok"))
    index = host.consul.client.get("/v1/catalog/service/outrider-shim").index
    host.end(signal.SIGTERM)
    host.start()
    host.wait(lambda: targets(host))
    host.wait(lambda: host.request("GET", "/health") and b"reachable" in host.request("GET", "/health"))
    assert host.consul.client.get("/v1/catalog/service/outrider-shim").index == index
    host.request("POST", "/v1/shutdown")
    assert host.shim
    assert host.shim.wait(timeout=15) == 0
    assert "outrider-shim" not in host.services()


def curl(host: ShimHost, authority: Authority, *client: Path) -> subprocess.CompletedProcess[str]:
    command = ["curl", "-s", "--max-time", "5", "--cacert", str(authority.file)]
    if client:
        command += ["--cert", str(client[0]), "--key", str(client[1])]
    url = f"https://127.0.0.1:{host.port}/health"
    return subprocess.run([*command, "-w", "\n%{certs}", url], capture_output=True, text=True, check=False)


def test_the_listener_speaks_tls_and_takes_a_renewed_certificate(host: ShimHost, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    client, (cert, key) = authority.issue("client"), authority.issue("server")
    lines = f'ca_file = "{authority.file}"\ncert_file = "{cert}"\nkey_file = "{key}"\n'
    host.configure(free_ports=True, tables=f"[http_tls]\n{lines}")
    host.start()
    host.wait(lambda: '"host":"local"' in curl(host, authority, *client).stdout)
    assert targets(host) == {"local": (f"127.0.0.1:{host.port}", "https")}
    assert curl(host, authority).returncode != 0
    plain = subprocess.run(
        ["curl", "-s", "--max-time", "5", f"http://127.0.0.1:{host.port}/health"], capture_output=True, check=False
    )
    assert plain.stdout == b""
    renewed = authority.issue("server")  # over the same files
    assert renewed == (cert, key)
    host.wait(lambda: host.log.read_text().count("the certificate changed: new connections get") == 1)
    assert '"host":"local"' in curl(host, authority, *client).stdout
    assert served_certificate(host, authority, client) == cert.read_text()


def served_certificate(host: ShimHost, authority: Authority, client: tuple[Path, Path]) -> str:
    where = f"127.0.0.1:{host.port}"
    command = ["openssl", "s_client", "-connect", where, "-CAfile", str(authority.file)]
    command += ["-cert", str(client[0]), "-key", str(client[1])]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
    return begin + said.split(begin)[1].split(end)[0] + end


def test_systemd_hears_that_the_shim_is_ready_lives_and_stops(
    host: ShimHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)

        def hear() -> str:
            return systemd.recv(100).decode()

        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        host.start()
        assert hear() == "READY=1"
        assert targets(host)  # ready means that it answers
        assert hear() == "WATCHDOG=1"
        assert host.shim
        os.kill(host.shim.pid, signal.SIGSTOP)
        silent(systemd)
        os.kill(host.shim.pid, signal.SIGCONT)
        assert hear() == "WATCHDOG=1"
        host.end(signal.SIGTERM)
        assert "STOPPING=1" in iter(hear, None)


def silent(systemd: Any) -> None:
    """Assert that nothing is heard for three beats, once those on the way have come."""
    systemd.settimeout(0.35)
    with contextlib.suppress(TimeoutError):
        for _ in range(20):
            systemd.recv(100)
        pytest.fail("a frozen shim goes on saying that it lives")
    systemd.settimeout(10)
