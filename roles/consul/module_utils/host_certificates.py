"""The fleet's own certificate authority, and what each host's certificates must say. No file is touched here."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What each kind of certificate is signed by. Calls have an authority of their own: agents hold those certificates, and
# Consul takes whatever is signed by its authority for a part of itself.
AUTHORITIES = {"consul": "ca", "shim": "ca", "calls": "calls-ca"}
KINDS = tuple(AUTHORITIES)
CA_DAYS = 3650
HOST_DAYS = 730
# A host whose clock is late must not refuse what was made a moment ago.
EARLIER = datetime.timedelta(hours=1)
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class SecretsError(Exception):
    """What is wrong with the hosts or the folder, and what to do about it."""


@dataclass(frozen=True)
class Host:
    """A host of the fleet; `server`: whether it runs a Consul server."""

    name: str
    addresses: tuple[str, ...] = ()
    server: bool = False


@dataclass(frozen=True)
class Identity:
    """What a certificate says of its holder."""

    subject: x509.Name
    names: tuple[x509.GeneralName, ...]


def identity(kind: str, host: Host, datacenter: str) -> Identity:
    """Only the Consul certificate of a server may say server.<datacenter>.consul. Raises SecretsError for bad names."""
    if not NAME.fullmatch(host.name) or host.name.endswith("-key"):
        raise SecretsError(
            f"{host.name!r} cannot be the name of a host: letters, digits, '.', '_', '-', not ending in -key"
        )
    if kind == "consul":
        server = [f"server.{datacenter}.consul"] if host.server else []
        own = [*server, f"{host.name}.node.{datacenter}.consul", "localhost", "127.0.0.1"]
    else:
        own = [host.name]
    given = [*host.addresses, *([] if kind == "consul" else own)]
    if bad := [each for each in given if each.rstrip(".").lower().endswith(".consul")]:
        raise SecretsError(f"{host.name}: {bad[0]} would speak for Consul's own names; give the host another one")
    subject = [(NameOID.ORGANIZATIONAL_UNIT_NAME, kind), (NameOID.COMMON_NAME, host.name)]
    names = tuple(_general(each) for each in dict.fromkeys([*own, *host.addresses]))
    return Identity(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]), names)


def _general(text: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?", text):
        raise SecretsError(f"{text!r} is neither an IP address nor a host's name")
    return x509.DNSName(text)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()  # the file's mode and its folder's protect it
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_key(data: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError if it is not a key of the kind made here."""
    key = serialization.load_pem_private_key(data, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no elliptic curve key")
    return key


def make_authority(name: str, key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    """An authority's certificate, signed by itself. It may sign hosts, but no further authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = now + datetime.timedelta(days=CA_DAYS)
    builder = _builder(subject, subject, key, key, (now - EARLIER, end))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(signs=True), critical=True).sign(key, hashes.SHA256())


def issue(
    wanted: Identity,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
) -> x509.Certificate:
    """A host's certificate, for both ends of a connection, which does not outlive the authority's."""
    end = min(now + datetime.timedelta(days=HOST_DAYS), authority.not_valid_after_utc)
    builder = _builder(wanted.subject, authority.subject, key, authority_key, (now - EARLIER, end))
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True).add_extension(both, critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(wanted.names), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    period: tuple[datetime.datetime, datetime.datetime],
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(period[0]).not_valid_after(period[1])
    of_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    of_subject = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(of_subject, critical=False).add_extension(of_issuer, critical=False)


def _usage(signs: bool) -> x509.KeyUsage:
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    usage |= {"encipher_only": False, "decipher_only": False, "key_cert_sign": signs, "crl_sign": signs}
    return x509.KeyUsage(digital_signature=not signs, **usage)


def why_anew(
    certificate: bytes | None,
    key: bytes | None,
    wanted: Identity,
    authority: x509.Certificate,
    renew_from: datetime.datetime,
) -> str:
    """Why a host's certificate must be made anew, empty if it is good. `renew_from`: it must last until then."""
    if certificate is None or key is None:
        return "it is not there"
    try:
        found = x509.load_pem_x509_certificate(certificate)
        own = load_key(key).public_key()
        names = set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return "it cannot be read"
    if found.public_key() != own:
        return "its key is another one"
    if found.subject != wanted.subject or names != set(wanted.names):
        return "names or addresses changed"
    try:
        found.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return "the CA is another one"
    # What ends with the authority would not last longer when made anew.
    if found.not_valid_after_utc < min(renew_from, authority.not_valid_after_utc):
        return f"it ends on {found.not_valid_after_utc:%Y-%m-%d}"
    return ""
