"""TLS between hosts, where the fleet asks for it: both sides show a certificate of the fleet's CA."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from outrider.errors import HostError

FOLDER = "OUTRIDER_CALLS_TLS"  # of ca.pem, cert.pem and key.pem; set by the shim


def client_context(folder: Path | None = None) -> ssl.SSLContext | None:
    """For connections to other hosts; None if calls are in the clear. Raises HostError.

    folder: of the certificates, by default the one that an agent is given
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, folder or _folder_given())


def server_context() -> ssl.SSLContext | None:
    """For connections from other hosts; only a certificate of the CA gets in. Raises HostError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, _folder_given())
    if context is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _folder_given() -> Path | None:
    given = os.environ.get(FOLDER)
    return Path(given) if given else None


def _context(protocol: int, folder: Path | None) -> ssl.SSLContext | None:
    if folder is None:
        return None
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ssl.SSLError) as error:
        raise HostError(
            f"the certificates for calls, {folder}: {error}", hint="the role `outrider` installs it: run site.yml"
        ) from error
    return context
