"""A secured three-server Consul cluster on loopback addresses, and the role's modules run against it as on a host."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible.module_utils
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROLE = Path(__file__).parents[3] / "roles" / "consul"
if str(ROLE / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
from ansible.module_utils.consul_http import Consul, ConsulError, Servers, tls_context  # noqa: E402
from ansible.module_utils.raft_gate import peers_of  # noqa: E402

PORTS = {"http": 8500, "https": 8501, "dns": -1, "grpc": -1, "serf_wan": -1, "server": 8300, "serf_lan": 8301}
MODULES: list[subprocess.Popen[str]] = []
MODULE = """
import runpy, sys
import ansible.module_utils
from ansible.module_utils.testing import patch_module_args
import json
ansible.module_utils.__path__.append(sys.argv[1])
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(sys.argv[2], run_name="__main__")
"""
# What the unit does: end the daemon, write what it is started with, start it.
RESTART = """
cd {folder}
if [ -s pid ] && read -r pid <pid; then
    kill "$pid" 2>/dev/null
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
fi
sha256sum {inputs} | sha256sum >applied
setsid {binary} agent -config-file={folder}/consul.json >>log 2>&1 </dev/null &
echo $! >pid
"""


@dataclass
class Authority:
    """A CA of this test run."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of a test")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        made = self._builder(self.name, self.key).add_extension(basic, critical=True).sign(self.key, hashes.SHA256())
        (self.folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, address: str, folder: Path) -> None:
        """host.pem and host-key.pem into a folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("server.dc1.consul"), x509.IPAddress(ipaddress.ip_address(address))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(subject, key).add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.add_extension(usage, critical=False).sign(self.key, hashes.SHA256())
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (folder / "host.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / "host-key.pem").write_bytes(private)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        return builder.not_valid_after(now + datetime.timedelta(days=1))


@dataclass
class Host:
    """A host with a Consul agent, whose files lie in one folder."""

    name: str
    address: str
    folder: Path
    binary: Path
    config: dict[str, Any]

    @property
    def url(self) -> str:
        return f"https://{self.address}:8501"

    @property
    def http(self) -> str:
        return f"http://{self.address}:8500"

    @property
    def server(self) -> bool:
        return bool(self.config["server"])

    @property
    def inputs(self) -> list[str]:
        return [str(self.folder / name) for name in ("consul.json", "host.pem", "host-key.pem")]

    @property
    def restart_command(self) -> list[str]:
        return ["/bin/sh", str(self.folder / "restart")]

    def write(self, **more: Any) -> None:
        """Its configuration, with more in it."""
        (self.folder / "consul.json").write_text(json.dumps({**self.config, **more}))
        inputs, folder, binary = shlex.join(self.inputs), shlex.quote(str(self.folder)), shlex.quote(str(self.binary))
        (self.folder / "restart").write_text(RESTART.format(folder=folder, inputs=inputs, binary=binary))

    def start(self) -> None:
        subprocess.run(self.restart_command, check=True)

    @property
    def pid(self) -> int:
        try:
            return int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return 0

    @property
    def runs(self) -> bool:
        return bool(self.pid) and Path(f"/proc/{self.pid}").exists()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, how)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


class Cluster:
    """Three servers, and clients as wanted, with TLS, ACLs that deny by default, and a gossip key."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self.folder, self.binary = folder, binary
        # Addresses of its own, so that test runs at the same time do not meet.
        chance = random.SystemRandom()
        self.prefix = f"127.{chance.randint(20, 250)}.{chance.randint(1, 250)}."
        self.management, self.gossip = str(uuid.uuid4()), base64.b64encode(os.urandom(32)).decode()
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder)
        self.hosts: list[Host] = []
        self.servers = [self.add(f"server-{number}", 1 + number, server=True) for number in (1, 2, 3)]

    def add(self, name: str, last: int, server: bool, **more: Any) -> Host:
        address, folder = f"{self.prefix}{last}", self.folder / name
        folder.mkdir()
        self.authority.issue(name, address, folder)
        config: dict[str, Any] = {
            "node_name": name,
            "server": server,
            "data_dir": str(folder / "data"),
            "bind_addr": address,
            "client_addr": address,
            "retry_join": [f"{self.prefix}{number}" for number in (2, 3, 4)],
            "retry_interval": "1s",
            "encrypt": self.gossip,
            "ca_file": str(self.folder / "ca.pem"),
            "cert_file": str(folder / "host.pem"),
            "key_file": str(folder / "host-key.pem"),
            **{f"verify_{what}": True for what in ("incoming", "outgoing", "server_hostname")},
            "acl": {"enabled": True, "default_policy": "deny", "down_policy": "extend-cache"},
            "performance": {"raft_multiplier": 1},
            "gossip_lan": {"probe_interval": "250ms", "probe_timeout": "125ms", "suspicion_mult": 3},
            "leave_on_terminate": False,
            "disable_update_check": True,
            "ports": dict(PORTS) if server else {**PORTS, "https": -1},
            **more,
        }
        if server:
            config["acl"] = {**config["acl"], "tokens": {"master": self.management}}
            config |= {"bootstrap_expect": 3, "autopilot": {"min_quorum": 3}}
        else:
            config["acl"] = {**config["acl"], "tokens": {"agent": self.management}}
        host = Host(name, address, folder, self.binary, config)
        host.write()
        self.hosts.append(host)
        return host

    def client(self, *hosts: Host) -> Servers:
        """What the tests themselves ask with."""
        tls = tls_context(self.connection["ca_file"], self.connection["cert_file"], self.connection["key_file"])
        return Servers(Consul(host.url, tls, self.management) for host in hosts or self.servers)

    @property
    def connection(self) -> dict[str, Any]:
        """Arguments that all the modules take."""
        own = self.servers[0].folder
        files = {"ca_file": self.folder / "ca.pem", "cert_file": own / "host.pem", "key_file": own / "host-key.pem"}
        urls = [host.url for host in self.servers]
        return {"servers": urls, **{k: str(v) for k, v in files.items()}, "management_token": self.management}

    def restart(self, host: Host, **more: Any) -> dict[str, Any]:
        """Arguments of module consul_restart."""
        files = {"applied_file": host.folder / "applied", "good_folder": host.folder / "good"}
        files |= {"cert_file": host.folder / "host.pem", "key_file": host.folder / "host-key.pem"}
        own = {"own": host.http, "own_server": host.url if host.server else "", "node": host.name}
        own |= {"inputs": host.inputs, "restart_command": host.restart_command, "timeout_s": 20, "operator": "ada@here"}
        return {**self.connection, **{k: str(v) for k, v in files.items()}, **own, **more}

    def settle(self, timeout_s: float = 20.0) -> None:
        """Waits until all three are voters and well."""
        wait(lambda: len([p for p in peers_of(self.client()) if p.well and p.voter]) == 3, timeout_s=timeout_s)

    def leader(self) -> Host:
        """Waits for one."""
        return wait(lambda: next(h for h in self.servers if h.address == self._leader_address()), StopIteration)

    def _leader_address(self) -> str:
        with contextlib.suppress(ConsulError):
            return str(self.client().get("status/leader")).split(":")[0]
        return ""

    def stop(self) -> None:
        """Ends all agents, and first the modules that would start one again."""
        while MODULES:
            module = MODULES.pop()
            module.kill()
            module.wait()
        for host in self.hosts:
            host.kill()


def wait(condition: Any, *errors: type[Exception], timeout_s: float = 20.0) -> Any:
    """What the condition returns once it is true and raises none of the errors."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if result := condition():
                return result
        except (*errors, ConsulError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def start_module(name: str, arguments: dict[str, Any], check: bool = False) -> subprocess.Popen[str]:
    """A module as it runs on a host: a process that gets its arguments by standard input."""
    command = [sys.executable, "-c", MODULE, str(ROLE / "module_utils"), str(ROLE / "library" / f"{name}.py")]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    MODULES.append(process)
    assert process.stdin
    process.stdin.write(json.dumps({**arguments, "_ansible_check_mode": check}))
    process.stdin.close()
    return process


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the module printed, which must be nothing but its result."""
    assert process.stdout
    assert process.stderr
    output, errors = process.stdout.read(), process.stderr.read()
    process.wait(120)
    assert output, errors
    return dict(json.loads(output))


def run_module(name: str, arguments: dict[str, Any], check: bool = False) -> dict[str, Any]:
    return result_of(start_module(name, arguments, check))
