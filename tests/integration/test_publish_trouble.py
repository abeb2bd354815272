"""Publishing where Consul refuses or fails: one clear error, and documents that are whole."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from publishing import an_agent, documents, order

from integration.conftest import ConsulServer
from outrider.errors import ConsulDenied, ConsulError
from outrider.migration.publication import Target, publish
from outrider.registry.client import connect
from outrider.registry.kv import list_docs
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, PlacementDoc


@pytest.fixture(scope="module")
def guarded(consul_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """A server that denies by default; its client has the management token."""
    token = str(uuid.uuid4())
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": token}}
    server = ConsulServer(consul_binary, tmp_path_factory.mktemp("guarded"), {"acl": acl})
    server.address = msgspec.structs.replace(server.address, token=token)
    server.client = connect(server.address)
    try:
        server.start()
        yield server
    finally:
        server.stop()


RIGHTS = {
    "reading": ('agent_prefix "" { policy = "read" }', "refuses GET /v1/kv/outrider/fleet/"),
    "locking": ('key_prefix "outrider/" { policy = "read" }', "refuses PUT /v1/session/create"),
    "writing": (
        'key_prefix "outrider/" { policy = "read" } key "outrider/locks/fleet" { policy = "write" } '
        'session_prefix "" { policy = "write" }',
        "may not write outrider/hosts/local",
    ),
}


@pytest.mark.parametrize("lacking", RIGHTS)
def test_a_token_without_the_right_is_told_at_once(guarded: ConsulServer, lacking: str, tmp_path: Path) -> None:
    rules, message = RIGHTS[lacking]
    guarded.client.put("/v1/acl/policy", msgspec.json.encode({"Name": lacking, "Rules": rules}))
    token = guarded.client.put("/v1/acl/token", msgspec.json.encode({"Policies": [{"Name": lacking}]}))
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(msgspec.json.decode(token)["SecretID"])
    began = time.monotonic()
    with pytest.raises(ConsulDenied, match=message):
        publish(Target(consul_port=guarded.ports["http"], consul_token_file=str(file)), order({"a": an_agent()}))
    assert time.monotonic() - began < 10  # a Consul that is only late is waited for, 20 s
    assert documents(guarded) == {}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which needs root")
def test_a_full_disk_leaves_whole_documents(
    consul_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.migration.driver.PATIENCE_S", 3.0)
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", data], check=True)
    server = ConsulServer(consul_binary, tmp_path)
    try:
        server.start()
        filler = data / "filler"
        space = os.statvfs(data)
        # Room for the lock and a few documents, not for all.
        filler.write_bytes(b"x" * (space.f_bavail * space.f_frsize - 300 * 1024))
        many = {f"agent-{n}": an_agent(config={"text": f"{n}" * 20000}) for n in range(60)}
        with pytest.raises(ConsulError, match=r"Consul has not worked for .* 0 agents are rolled out") as failure:
            publish(Target(consul_port=server.ports["http"]), order(many))
        assert "a full disk" in failure.value.hint
        filler.unlink()
        wait_for_leader(server)
        agents = list_docs(server.client, FLEET, AgentDoc).docs
        placements = list_docs(server.client, PLACEMENT, PlacementDoc).docs
        assert agents.keys() == placements.keys()
        assert len(agents) < 60
    finally:
        server.stop()
        subprocess.run(["umount", data], check=True)


def wait_for_leader(server: ConsulServer) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            server.client.put("/v1/kv/writable", b"1")
            return
        except ConsulError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
