"""Secrets are made once, for their owner only, and a certificate proves who a host is and nothing more."""

from __future__ import annotations

import base64
import contextlib
import datetime
import importlib
import json
import shutil
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from ansible.module_utils.testing import patch_module_args
from cryptography import x509

from unit.library.as_ansible import ROOT, Run, load

SERVER = {"name": "alpha", "addresses": ["10.1.2.3"], "server": True}
CLIENT = {"name": "beta", "addresses": ["10.1.2.4", "beta.example.org"]}
MADE = ["ca.pem", "consul/alpha.pem", "shim/alpha.pem", "consul/beta.pem", "shim/beta.pem"]
MADE += ["calls-ca.pem", "calls/alpha.pem", "calls/beta.pem", "gossip.key", "peers.key"]
MADE += ["tokens.json: management", "tokens.json: monitoring", "tokens.json: alpha", "tokens.json: beta"]


@pytest.fixture
def utilities(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [*ansible.module_utils.__path__, str(ROOT / "roles" / "consul" / "module_utils")]
    monkeypatch.setattr(ansible.module_utils, "__path__", paths)


@pytest.fixture
def certificates(utilities: None) -> ModuleType:
    return importlib.import_module("ansible.module_utils.host_certificates")


@pytest.fixture
def run(
    utilities: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Run the module as Ansible would, and return what it prints, in which no secret may be."""
    monkeypatch.setenv("HOME", str(tmp_path))
    module = load("host_secrets")
    printed: list[str] = []

    def call(folder: Path, *hosts: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        arguments = {"folder": str(folder), "hosts": list(hosts), **more, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        printed.append(capsys.readouterr().out)
        return dict(json.loads(printed[-1]))

    yield call
    for secret in secrets(tmp_path):
        assert not any(secret in text for text in printed)


def secrets(folder: Path) -> list[str]:
    tokens = [json.loads(path.read_text()) for path in folder.rglob("tokens.json")]
    entries = [
        entry
        for each in tokens
        for entry in (
            *(each[name] for name in ("management", "monitoring") if name in each),
            *each.get("hosts", {}).values(),
        )
    ]
    keys = [path.read_text().strip() for name in ("gossip.key", "peers.key") for path in folder.rglob(name)]
    return [*(entry["secret"] for entry in entries), *keys, "PRIVATE KEY"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_lacking_is_made_once(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert run(folder, SERVER, CLIENT, check=True)["made"] == MADE
    assert not folder.exists()
    first = run(folder, SERVER, CLIENT)
    assert (first["changed"], first["made"], first["removed"], first["tightened"]) == (True, MADE, [], [])
    before = contents(folder)
    again = run(folder, SERVER, CLIENT)
    assert (again["changed"], again["made"], again["diff"]["after"]) == (False, [], "")
    assert contents(folder) == before


def test_only_the_owner_may_read_and_what_others_could_read_is_closed(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    run(folder, SERVER)
    paths = [folder, *folder.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}
    (folder / "ca-key.pem").chmod(0o644)
    folder.chmod(0o755)
    assert run(folder, SERVER, check=True)["tightened"] == [str(folder), str(folder / "ca-key.pem")]
    assert run(folder, SERVER)["changed"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "ca-key.pem")] == [0o700, 0o600]


def test_a_fleet_from_before_there_were_peers_gets_their_key(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "s", SERVER)
    before = contents(tmp_path / "s")
    (tmp_path / "s" / "peers.key").unlink()
    assert run(tmp_path / "s", SERVER)["made"] == ["peers.key"]
    after = contents(tmp_path / "s")
    assert len(base64.b64decode(after["peers.key"])) == 32
    assert after | {"peers.key": b""} == before | {"peers.key": b""}


def test_the_gossip_key_and_tokens_are_what_consul_takes(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "s", SERVER, CLIENT)
    assert len(base64.b64decode((tmp_path / "s" / "gossip.key").read_text())) == 32
    tokens = json.loads((tmp_path / "s" / "tokens.json").read_text())
    assert set(tokens) == {"management", "monitoring", "hosts"}
    assert set(tokens["hosts"]) == {"alpha", "beta"}
    entries = [tokens["management"], tokens["monitoring"], *tokens["hosts"].values()]
    assert len({entry[part] for entry in entries for part in ("accessor", "secret")}) == 8


def handshake(
    server: Path, client: Path, folder: Path, name: str, client_ca: Path | None = None, ca: str = "ca.pem"
) -> None:
    """Real TLS with certificates on both ends, checked as strictly as Python can. Raises ssl.SSLError."""
    contexts = []
    for purpose, path, authority in (
        (ssl.Purpose.CLIENT_AUTH, server, folder / ca),
        (ssl.Purpose.SERVER_AUTH, client, client_ca or folder / ca),
    ):
        context = ssl.create_default_context(purpose, cafile=str(authority))
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(path, path.with_name(f"{path.stem}-key.pem"))
        contexts.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        contexts[1].wrap_bio(to_client, to_server, server_hostname=name),
        contexts[0].wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    # With TLS 1.3 a client learns only by reading that its certificate was refused.
    ends[1].write(b"welcome")
    assert ends[0].read() == b"welcome"


def test_hosts_prove_to_each_other_who_they_are(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    run(folder, SERVER, CLIENT)
    for name in ("server.dc1.consul", "alpha.node.dc1.consul", "localhost", "127.0.0.1", "10.1.2.3"):
        handshake(folder / "consul" / "alpha.pem", folder / "consul" / "beta.pem", folder, name)
    for name in ("beta", "10.1.2.4", "beta.example.org"):
        handshake(folder / "shim" / "beta.pem", folder / "shim" / "alpha.pem", folder, name)


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ("consul/beta", "server.dc1.consul"),
        ("consul/beta", "alpha.node.dc1.consul"),
        ("shim/alpha", "server.dc1.consul"),
        ("shim/beta", "alpha"),
        ("shim/beta", "10.1.2.3"),
    ],
)
def test_a_host_cannot_speak_for_another(run: Run, tmp_path: Path, certificate: str, name: str) -> None:
    folder = tmp_path / "s"
    run(folder, SERVER, CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(folder / f"{certificate}.pem", folder / "consul" / "alpha.pem", folder, name)


def test_a_certificate_of_another_ca_is_refused_by_both_ends(run: Run, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        run(folder, SERVER)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(theirs / "shim" / "alpha.pem", ours / "shim" / "alpha.pem", ours, "alpha")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ours / "shim" / "alpha.pem", theirs / "shim" / "alpha.pem", ours, "alpha")


def test_certificates_last_as_long_as_is_said(run: Run, tmp_path: Path) -> None:
    run(tmp_path, SERVER)
    now = datetime.datetime.now(datetime.UTC)
    for name, days in (("ca", 3650), ("consul/alpha", 730), ("shim/alpha", 730)):
        found = x509.load_pem_x509_certificate((tmp_path / f"{name}.pem").read_bytes())
        assert abs(found.not_valid_after_utc - now - datetime.timedelta(days=days)) < datetime.timedelta(minutes=1)
        assert found.not_valid_before_utc < now


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        ({"addresses": ["10.1.2.9"]}, {}, "names or addresses changed"),
        ({"server": True}, {}, "names or addresses changed"),
        ({}, {"datacenter": "dc2"}, "names or addresses changed"),
        ({}, {"renew_days": 731}, "it ends on 20"),
    ],
)
def test_a_certificate_is_made_anew_when_it_must_be(
    run: Run, tmp_path: Path, change: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    run(tmp_path / "s", CLIENT)
    before = contents(tmp_path / "s")
    result = run(tmp_path / "s", {**CLIENT, **change}, **options)
    assert "consul/beta.pem" in result["made"]
    assert set(result["made"]) <= {"consul/beta.pem", "shim/beta.pem", "calls/beta.pem"}
    assert f"consul/beta.pem: {why}" in result["diff"]["after"]
    after = contents(tmp_path / "s")
    assert {name for name in after if after[name] != before[name]} >= {"consul/beta.pem", "consul/beta-key.pem"}
    assert after["ca.pem"] == before["ca.pem"]


def test_what_would_not_last_longer_is_not_made_anew_at_every_run(run: Run, tmp_path: Path) -> None:
    run(tmp_path, CLIENT, renew_days=3650)
    assert run(tmp_path, CLIENT, renew_days=700)["made"] == []


def test_certificates_end_with_their_ca(certificates: ModuleType) -> None:
    key, now = certificates.new_key(), datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    authority, later = certificates.make_authority("CA", key, now), now + datetime.timedelta(days=3600)
    who = certificates.identity("shim", certificates.Host("a"), "dc1")
    own = certificates.new_key()
    made = certificates.issue(who, own, authority, key, later)
    assert made.not_valid_after_utc == authority.not_valid_after_utc
    pems = certificates.pem(made), certificates.key_pem(own)
    assert certificates.why_anew(*pems, who, authority, later + datetime.timedelta(days=60)) == ""


def test_what_agents_hold_is_not_signed_by_the_authority_of_consul(run: Run, tmp_path: Path) -> None:
    run(tmp_path, SERVER, CLIENT)
    handshake(tmp_path / "calls" / "alpha.pem", tmp_path / "calls" / "beta.pem", tmp_path, "alpha", ca="calls-ca.pem")
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path / "consul" / "alpha.pem", tmp_path / "calls" / "beta.pem", tmp_path, "server.dc1.consul")


def test_a_new_ca_means_new_certificates(run: Run, tmp_path: Path) -> None:
    run(tmp_path, CLIENT)
    for name in ("ca.pem", "ca-key.pem"):
        (tmp_path / name).unlink()
    assert run(tmp_path, CLIENT)["made"] == ["ca.pem", "consul/beta.pem", "shim/beta.pem"]
    other = tmp_path / "other"
    run(other, CLIENT)
    for name in ("ca.pem", "ca-key.pem"):
        shutil.copy(other / name, tmp_path / name)
    assert "shim/beta.pem: the CA is another one" in run(tmp_path, CLIENT)["diff"]["after"]


def test_a_run_that_was_broken_off_is_finished(run: Run, tmp_path: Path) -> None:
    """Wherever it ended: each file is there whole or not at all, and a certificate without its own key is made anew."""
    folder = tmp_path / "whole"
    run(folder, SERVER)
    (tmp_path / "only-the-key").mkdir(mode=0o700)
    shutil.copy(folder / "ca-key.pem", tmp_path / "only-the-key")
    run(tmp_path / "only-the-key", SERVER)
    assert (tmp_path / "only-the-key" / "ca-key.pem").read_bytes() == (folder / "ca-key.pem").read_bytes()
    shutil.copy(folder / "shim" / "alpha-key.pem", folder / "consul" / "alpha-key.pem")
    (folder / "shim" / ".alpha.pem.new").write_text("half")
    (folder / "shim" / "alpha.pem").unlink()
    result = run(folder, SERVER)
    assert result["made"] == ["consul/alpha.pem", "shim/alpha.pem"]
    assert "consul/alpha.pem: its key is another one" in result["diff"]["after"]
    assert not list(folder.rglob("*.new"))
    handshake(folder / "consul" / "alpha.pem", folder / "shim" / "alpha.pem", folder, "server.dc1.consul")


def test_hosts_keep_their_secrets_until_they_are_forgotten(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "s", SERVER, CLIENT)
    assert not run(tmp_path / "s", SERVER)["changed"]
    kinds = ("consul", "shim", "calls")
    gone = [f"{kind}/beta{end}.pem" for kind in kinds for end in ("", "-key")] + ["tokens.json: beta"]
    assert run(tmp_path / "s", SERVER, forget=["beta"], check=True)["removed"] == gone
    assert run(tmp_path / "s", SERVER, forget=["beta"])["removed"] == gone
    assert not [name for name in contents(tmp_path / "s") if "beta" in name]
    assert set(json.loads((tmp_path / "s" / "tokens.json").read_text())["hosts"]) == {"alpha"}
    assert not run(tmp_path / "s", SERVER, forget=["beta"])["changed"]


@pytest.mark.parametrize(
    ("hosts", "options", "message"),
    [
        ([{"name": "../x"}], {}, "cannot be the name of a host"),
        ([{"name": "a-key"}], {}, "cannot be the name of a host"),
        ([{"name": "server.dc1.consul"}], {}, "would speak for Consul's own names"),
        ([SERVER, {"name": "a", "addresses": ["Server.dc1.consul."]}], {}, "would speak for Consul's own names"),
        ([{"name": "a", "addresses": ["10.0.0.0/8"]}], {}, "neither an IP address nor a host's name"),
        ([SERVER, SERVER], {}, "alpha is listed twice"),
        ([SERVER], {"forget": ["alpha"]}, "alpha is to be forgotten, and is a host"),
        ([SERVER], {"forget": ["../../etc"]}, "cannot be the name of a host"),
        ([SERVER], {"datacenter": "dc 1"}, "datacenter:"),
    ],
)
def test_mistakes_are_refused_before_anything_is_made(
    run: Run, tmp_path: Path, hosts: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    result = run(tmp_path / "s", *hosts, **options)
    assert result["failed"] is True
    assert message in result["msg"]
    assert set(contents(tmp_path)) <= {"s/.lock"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokens.json", '{"management": {"secret": "not-a-uuid"}}', "tokens.json is damaged"),
        ("gossip.key", "short", "gossip.key is damaged"),
        ("peers.key", "c2hvcnQ=", "peers.key is damaged"),
        ("gossip.key", None, "gossip.key is gone, and a new one would split the fleet"),
        ("ca.pem", "nothing", "damaged"),
        ("ca-key.pem", "nothing", "damaged"),
        ("ca-key.pem", None, "ca-key.pem is not there"),
    ],
)
def test_what_is_damaged_is_not_replaced(
    run: Run, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    run(tmp_path / "s", SERVER)
    path = tmp_path / "s" / name
    path.unlink() if content is None else path.write_text(content)
    before = contents(tmp_path / "s")
    result = run(tmp_path / "s", SERVER, CLIENT)
    assert result["failed"] is True
    assert message in result["msg"]
    assert contents(tmp_path / "s") == before


def test_two_operators_at_once_make_one_set(run: Run, tmp_path: Path) -> None:
    """Eight runs that begin together: one makes everything, the others find it."""
    folder_module = importlib.import_module("ansible.module_utils.secrets_folder")
    host = importlib.import_module("ansible.module_utils.host_certificates").Host("alpha")
    now = datetime.datetime.now(datetime.UTC)
    start, made = threading.Barrier(8), []

    def operate() -> None:
        start.wait()
        made.append(len(folder_module.run((tmp_path / "s", "dc1", 60, now), [host], [], False)["made"]))

    threads = [threading.Thread(target=operate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0] * 7 + [10]


def test_who_waits_too_long_is_told_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = importlib.import_module("ansible.module_utils.private_folder")
    monkeypatch.setattr(private, "LOCK_WAIT_S", 0.05)
    with private.locked(tmp_path / "s"):
        assert "another run has" in run(tmp_path / "s", SERVER)["msg"]
