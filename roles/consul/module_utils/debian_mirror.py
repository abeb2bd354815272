"""Gets one program out of a Debian package of any suite, from the mirror that this machine's apt uses, verified.

The chain of trust is apt's own: the archive's keyring signs InRelease, which carries the sha256 of Packages.xz, which
carries the sha256 of the package. Nothing is installed and no root is needed.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.urls import open_url

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
APT = Path("/etc/apt")
TIMEOUT_S = 60


class MirrorError(Exception):
    """What could not be found, fetched or verified, and what to do instead."""


class Entry(NamedTuple):
    """A package as the archive's index lists it."""

    version: str
    filename: str
    sha256: str


def mirrors(apt: Path = APT) -> list[str]:
    """Addresses named by apt's sources, in order and once each; both forms of source files are read."""
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    found: list[str] = []
    for file in files:
        if file.suffix in (".list", ".sources") and file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            found += _deb822(text) if file.suffix == ".sources" else _one_line(text)
    return list(dict.fromkeys(uri.rstrip("/") for uri in found if uri.startswith(("http://", "https://"))))


def _one_line(text: str) -> Iterable[str]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+\S+", line)
        if match:
            yield match[1]


def _deb822(text: str) -> Iterable[str]:
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = dict(re.findall(r"(?ms)^([A-Za-z-]+):[ \t]*(.*?)(?=^\S|\Z)", stanza))
        fields = {name.lower(): value.split() for name, value in fields.items()}
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
            yield from fields.get("uris", [])


def signed_release(suite: str, addresses: list[str], keyring: Path = KEYRING) -> tuple[str, str]:
    """The first mirror that has the suite under a good signature, and the signed text of its InRelease."""
    if not keyring.is_file() or not shutil.which("gpgv"):
        raise MirrorError(f"gpgv and {keyring} are needed to verify what a mirror sends (gpgv, debian-archive-keyring)")
    tried = []
    for address in addresses:
        try:
            return address, _verified(_get(f"{address}/dists/{suite}/InRelease"), keyring)
        except MirrorError as error:
            tried.append(str(error))
    reasons = "\n  ".join(tried) or "no http source is named there"
    raise MirrorError(f"no mirror in {APT}/sources.list* has Debian {suite}:\n  {reasons}")


def _verified(inrelease: bytes, keyring: Path) -> str:
    """What the signature covers, as gpgv writes it: text around it is worth nothing.

    As apt does: one good signature is enough, for a suite is signed by keys of newer releases too; a bad one is not.
    """
    with tempfile.TemporaryDirectory() as folder:
        signed, plain = Path(folder, "InRelease"), Path(folder, "Release")
        signed.write_bytes(inrelease)
        command = ["gpgv", "--status-fd", "1", "--keyring", str(keyring), "--output", str(plain), str(signed)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if " GOODSIG " not in result.stdout or " BADSIG " in result.stdout or not plain.exists():
            raise MirrorError(f"InRelease has no good signature: {result.stderr.strip()}")
        return plain.read_text(encoding="utf-8")


def find(package: str, arch: str, suite: str, mirror: str, release: str) -> Entry:
    """The package's entry in the signed index."""
    index = f"main/binary-{arch}/Packages.xz"
    match = re.search(rf"(?m)^ ([0-9a-f]{{64}})\s+\d+\s+{re.escape(index)}$", release)
    if not match:
        raise MirrorError(f"Debian {suite} has no index {index}: is {arch} one of its architectures?")
    text = lzma.decompress(_get(f"{mirror}/dists/{suite}/{index}", match[1])).decode()
    start = text.find(f"\nPackage: {package}\n")
    if start < 0 and not text.startswith(f"Package: {package}\n"):
        raise MirrorError(f"Debian {suite} ({arch}) has no package {package}")
    stanza = text[max(start, 0) :].lstrip("\n").split("\n\n", 1)[0]
    fields = dict(re.findall(r"(?m)^(Version|Filename|SHA256): (.*)$", stanza))
    return Entry(fields["Version"], fields["Filename"], fields["SHA256"])


def fetch(entry: Entry, mirror: str) -> bytes:
    """The package itself, held against the index."""
    return _get(f"{mirror}/{entry.filename}", entry.sha256)


def unpack_program(entry: Entry, mirror: str, member: str, dest: Path) -> None:
    """Put the program `member` of the package at `dest`, complete or not at all."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".fetch-") as folder:
        deb, root = Path(folder, "package.deb"), Path(folder, "root")
        deb.write_bytes(fetch(entry, mirror))
        command = ["dpkg-deb", "--extract", str(deb), str(root)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        program = root / member
        if result.returncode or not program.is_file():
            raise MirrorError(f"{entry.filename} holds no {member}: {result.stderr.strip()}")
        program.chmod(0o755)
        os.replace(program, dest)


def _get(url: str, sha256: str = "") -> bytes:
    shown = urllib.parse.urlsplit(url)._replace(netloc=urllib.parse.urlsplit(url).hostname or "").geturl()
    try:
        content: bytes = open_url(url, timeout=TIMEOUT_S).read()
    except (urllib.error.URLError, OSError) as error:
        raise MirrorError(f"{shown}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise MirrorError(f"{shown}: sha256 is {found}, the signed index says {sha256}")
    return content
