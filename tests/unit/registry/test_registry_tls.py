"""TLS towards the Consul agent: who is trusted, who is let in, and that a waiting line can be cut there too."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from outrider.errors import ConsulError, ConsulUnreachable
from outrider.registry.client import connect


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(cert_file), str(key_file)


@pytest.fixture
def server_side(tmp_path) -> tuple[ssl.SSLContext, str]:
    """A server's context, and the file that says whom to trust."""
    cert_file, key_file = certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context, cert_file


def test_a_server_is_trusted_by_the_given_authority_alone(fake_consul, answers, server_side, tmp_path) -> None:
    context, ca_file = server_side
    fake = fake_consul(answers(body=b"ok"), context)
    assert connect(replace(fake.address, ca_file=ca_file)).get("/v1/a").body == b"ok"
    other, _ = certificate(tmp_path, "other")
    for wrong in (replace(fake.address, ca_file=other), fake.address):
        with pytest.raises(ConsulUnreachable, match="TLS: "):
            connect(wrong).get("/v1/a")


def test_a_server_that_asks_gets_our_certificate(fake_consul, answers, server_side, tmp_path) -> None:
    context, ca_file = server_side
    cert_file, key_file = certificate(tmp_path, "client")
    context.load_verify_locations(cert_file)
    context.verify_mode = ssl.CERT_REQUIRED
    fake = fake_consul(answers(body=b"ok"), context)
    known = replace(fake.address, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    assert connect(known).get("/v1/a").body == b"ok"
    with pytest.raises(ConsulUnreachable):
        connect(replace(fake.address, ca_file=ca_file)).get("/v1/a")


@pytest.mark.parametrize("field", ["ca_file", "cert_file"])
def test_a_file_that_cannot_be_used_is_named_at_once(fake_consul, answers, server_side, field, tmp_path) -> None:
    fake = fake_consul(answers(), server_side[0])
    for path in (tmp_path / "missing.pem", tmp_path / "broken.pem"):
        (tmp_path / "broken.pem").write_text("no certificate")
        with pytest.raises(ConsulError, match=path.name):
            connect(replace(fake.address, **{field: str(path)}))


def test_a_waiting_line_is_cut(fake_consul, answers, server_side) -> None:
    context, ca_file = server_side
    asked, release = threading.Event(), threading.Event()
    fake = fake_consul(answers(before=lambda: (asked.set(), release.wait(10))), context)
    client = connect(replace(fake.address, ca_file=ca_file))
    line = client.http.line()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/v1/a", timeout_s=10, line=line)
        assert asked.wait(5)
        began = time.monotonic()
        line.cut()
        with pytest.raises(ConsulUnreachable, match="cut off here"):
            waiting.result(5)
        assert time.monotonic() - began < 5
    release.set()
