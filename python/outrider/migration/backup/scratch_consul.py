"""A Consul server of our own on loopback, which goes again: where backups of Consul are restored for proof.

What it is given holds every secret of the fleet, and any user of the host can reach a loopback port: so it denies
everything to who has not the token that is made for it, and lets nobody into its gossip.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from outrider.errors import BackupDamaged, BackupError, ConsulError
from outrider.registry.address import Address
from outrider.registry.capabilities import capabilities_of, parse_version
from outrider.registry.client import Consul, connect
from outrider.registry.kv import Change, list_docs, put_docs
from outrider.registry.layout import FLEET, AgentDoc

START_S = 30.0
RESTORE_S = 60.0
ATTEMPTS = 3  # a port may be taken between its choice and its use
PLACES = ("/usr/local/bin/consul", "/usr/bin/consul")
_PR_SET_PDEATHSIG = 1


def find_program(beside: Path) -> Path | None:
    """Consul's program: of the embedded mode, where the role puts it, or on the path."""
    for place in (beside, *map(Path, PLACES)):
        if place.is_file():
            return place
    found = shutil.which("consul")
    return Path(found) if found else None


def snapshot_comes_back(snapshot: Path, program: Path | None, folder: Path) -> tuple[str, ...]:
    """Consul's own inspection, and a server that is restored from it. Raises BackupError."""
    program = _program(program)
    done = subprocess.run([program, "snapshot", "inspect", snapshot], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupDamaged(f"{snapshot.name}: Consul refuses it: {done.stderr.strip() or done.stdout.strip()}")
    index = next((line.split()[1] for line in done.stdout.splitlines() if line.split()[:1] == ["Index"]), "?")
    with scratch_consul(program, folder) as consul:
        try:
            consul.put("/v1/snapshot", snapshot.read_bytes(), timeout_s=RESTORE_S)
            agents = list_docs(consul, FLEET, AgentDoc)
        except ConsulError as error:
            raise BackupDamaged(f"{snapshot.name}: a scratch Consul does not take it: {error.message}") from error
        if agents.problems:
            raise BackupDamaged(f"{snapshot.name}: restored, but {agents.problems[0]}")
    return (f"Consul inspected it, index {index}", f"a scratch Consul has {len(agents.docs)} agents of it")


def keys_come_back(keys: Mapping[str, bytes], program: Path | None, folder: Path) -> tuple[str, ...]:
    """Written into an empty Consul by check-and-set, and read from it. Raises BackupError."""
    with scratch_consul(_program(program), folder) as consul:
        try:
            put_docs(consul, [Change(key, msgspec.Raw(value), 0) for key, value in keys.items()])
            for key, value in keys.items():
                if consul.get(f"/v1/kv/{key}", params={"raw": ""}).body != value:
                    raise BackupDamaged(f"key {key}: is otherwise after a restore into a scratch Consul")
        except ConsulError as error:
            raise BackupDamaged(f"a scratch Consul does not take the keys: {error.message}") from error
    return ("written into a scratch Consul and read from it",)


@contextlib.contextmanager
def scratch_consul(program: Path, folder: Path) -> Iterator[Consul]:
    """A running server without a network and without anybody's data. Raises BackupError if it does not start."""
    with tempfile.TemporaryDirectory(prefix="consul-", dir=folder) as made:
        for attempt in range(ATTEMPTS):
            process, consul = _started(program, Path(made))
            try:
                if _leads(process, consul):
                    yield consul
                    return
            finally:
                process.kill()
                process.wait()
            if attempt == ATTEMPTS - 1:
                said = (Path(made) / "log").read_text(errors="replace").strip().splitlines()[-3:]
                raise BackupError("a scratch Consul does not start: " + " / ".join(said))


def _program(program: Path | None) -> Path:
    if program is None:
        raise BackupError(
            "Consul's program is not on this host: nothing of Consul can be proved by a restore",
            hint="name it: --consul-program /path/to/consul",
        )
    return program


def _started(program: Path, folder: Path) -> tuple[subprocess.Popen[bytes], Consul]:
    shutil.rmtree(folder / "data", ignore_errors=True)
    token, config = str(uuid.uuid4()), folder / "consul.json"
    http, server, serf = _free_ports(3)
    settings = _settings(program, folder, token, {"http": http, "server": server, "serf_lan": serf})
    config.touch(mode=0o600)
    config.write_text(json.dumps(settings))
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [program, "agent", f"-config-file={config}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_us,
        )  # fmt: skip
    return process, connect(Address(port=http, token=token, timeout_s=10.0))


def _settings(program: Path, folder: Path, token: str, ports: Mapping[str, int]) -> dict[str, object]:
    said = subprocess.run([program, "version"], capture_output=True, text=True, check=False).stdout
    try:
        known = capabilities_of(parse_version(said.partition("Consul v")[2]))
    except ValueError:
        raise BackupError(f"{program} does not tell its version: it is no Consul") from None
    off = dict.fromkeys(("serf_wan", "dns", "grpc", *(["grpc_tls"] if known.grpc_tls_port else [])), -1)
    return {
        "node_name": "scratch",
        "data_dir": str(folder / "data"),
        "server": True,
        "bootstrap_expect": 1,
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "disable_update_check": True,
        "performance": {"raft_multiplier": 1},
        "ports": {**ports, **off},
        "encrypt": base64.b64encode(secrets.token_bytes(32)).decode(),
        "acl": {"enabled": True, "default_policy": "deny", "tokens": {known.acl.initial_management: token}},
    }


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _leads(process: subprocess.Popen[bytes], consul: Consul) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(ConsulError):
            consul.put("/v1/kv/ready", b"")
            consul.delete("/v1/kv/ready")
            return True
        time.sleep(0.02)
    return False


def _free_ports(count: int) -> list[int]:
    """Free now on loopback, for TCP and UDP alike."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            tcp = stack.enter_context(socket.socket())
            udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", tcp.getsockname()[1]))
                found.append(tcp.getsockname()[1])
        return found
