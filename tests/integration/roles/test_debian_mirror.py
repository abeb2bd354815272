"""A program comes out of a Debian package only if the archive's keys vouch for it: against an archive made here."""

from __future__ import annotations

import functools
import hashlib
import http.server
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def mirror_code() -> ModuleType:
    sys.path.insert(0, str(ROOT / "roles" / "consul" / "module_utils"))
    try:
        import debian_mirror
    finally:
        sys.path.pop(0)
    module: ModuleType = debian_mirror
    return module


class Archive:
    """A Debian archive with one package, signed by a key of its own."""

    def __init__(self, folder: Path) -> None:
        self.www, self.gpg = folder / "www", folder / "gpg"
        self.gpg.mkdir(mode=0o700, parents=True)
        self.keyring = folder / "keyring.gpg"
        self._gpg("--passphrase", "", "--quick-generate-key", "archive@example.org", "ed25519", "sign")
        self._gpg("--output", str(self.keyring), "--export")
        root = folder / "root"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/bin/consul").write_text("a program\n")
        (root / "DEBIAN/control").write_text(
            "Package: consul\nVersion: 1.8.7-1\nArchitecture: all\nMaintainer: Us <us@example.org>\nDescription: x\n"
        )
        self.deb = self.www / "pool/consul.deb"
        self.deb.parent.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, self.deb], check=True, capture_output=True)
        self.index = self.www / "dists/stable/main/binary-amd64/Packages.xz"
        self.index.parent.mkdir(parents=True)
        self.release = self.www / "dists/stable/InRelease"
        self.publish()

    def publish(self) -> None:
        """Write the index, and InRelease under a signature."""
        digest = hashlib.sha256(self.deb.read_bytes()).hexdigest()
        other = "Package: other\nVersion: 1\nFilename: pool/other.deb\nSHA256: 00\n\n"
        entry = f"Package: consul\nVersion: 1.8.7-1\nFilename: pool/consul.deb\nSHA256: {digest}\n\n"
        self.index.write_bytes(lzma.compress((other + entry).encode()))
        listed = hashlib.sha256(self.index.read_bytes()).hexdigest()
        plain = self.release.with_name("Release")
        plain.write_text(
            f"Suite: stable\nSHA256:\n {listed} {self.index.stat().st_size} main/binary-amd64/Packages.xz\n"
        )
        self.release.unlink(missing_ok=True)
        self._gpg("--output", str(self.release), "--clearsign", str(plain))

    def _gpg(self, *arguments: str) -> None:
        command = ["gpg", "--homedir", str(self.gpg), "--batch", "--quiet", *arguments]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps its log to itself."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "archive")
    yield made
    subprocess.run(["gpgconf", "--homedir", str(made.gpg), "--kill", "gpg-agent"], check=False, capture_output=True)


@pytest.fixture
def address(archive: Archive) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(archive.www))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(code: ModuleType, archive: Archive, addresses: list[str], dest: Path) -> None:
    """What the module debian_program does."""
    mirror, release = code.signed_release("stable", addresses, archive.keyring)
    entry = code.find("consul", "amd64", "stable", mirror, release)
    code.unpack_program(entry, mirror, "usr/bin/consul", dest)


def test_a_signed_package_yields_its_program(
    mirror_code: ModuleType, archive: Archive, address: str, tmp_path: Path
) -> None:
    dest = tmp_path / "cache" / "consul"
    fetch(mirror_code, archive, [f"{address}/no-such-suite", address], dest)
    assert dest.read_text() == "a program\n"
    assert os.access(dest, os.X_OK)
    assert [path.name for path in dest.parent.iterdir()] == ["consul"]


@pytest.mark.parametrize(
    ("victim", "said"),
    [("release", "no good signature"), ("index", "the signed index says"), ("deb", "the signed index says")],
)
def test_what_was_tampered_with_is_refused(
    mirror_code: ModuleType, archive: Archive, address: str, tmp_path: Path, victim: str, said: str
) -> None:
    path: Path = getattr(archive, victim)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"stable", b"stabel") if victim == "release" else content + b"x")
    dest = tmp_path / "cache" / "consul"
    with pytest.raises(mirror_code.MirrorError, match=said):
        fetch(mirror_code, archive, [address], dest)
    assert not list(tmp_path.glob("cache/*"))


def test_text_around_the_signed_part_is_worth_nothing(
    mirror_code: ModuleType, archive: Archive, address: str, tmp_path: Path
) -> None:
    forged = f"{'0' * 64} 1 main/binary-amd64/Packages.xz\n"
    archive.release.write_text(f"SHA256:\n {forged}\n{archive.release.read_text()}")
    _, release = mirror_code.signed_release("stable", [address], archive.keyring)
    assert "0" * 64 not in release
    assert "main/binary-amd64/Packages.xz" in release


def test_another_key_is_refused(mirror_code: ModuleType, archive: Archive, address: str, tmp_path: Path) -> None:
    other = Archive(tmp_path / "other")
    archive.keyring = other.keyring
    with pytest.raises(mirror_code.MirrorError, match="no good signature"):
        fetch(mirror_code, archive, [address], tmp_path / "consul")


def test_both_forms_of_source_files_name_mirrors(mirror_code: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://commented.example/debian stable main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian/ stable main\n"
        "deb-src http://source.example/debian stable main\ndeb cdrom:[Debian] stable main\n"
    )
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb deb-src\n# a comment http://no.example\nURIs: https://two.example/debian\n http://three.example/debian\n"
        "Suites: stable\nComponents: main\n\nEnabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: stable\n"
    )
    (tmp_path / "sources.list.d" / "old.list.save").write_text("deb http://saved.example/debian stable main\n")
    assert mirror_code.mirrors(tmp_path) == [
        "http://one.example/debian",
        "https://two.example/debian",
        "http://three.example/debian",
    ]


def test_without_a_mirror_the_error_says_so(mirror_code: ModuleType, archive: Archive) -> None:
    with pytest.raises(mirror_code.MirrorError, match="no http source is named there"):
        mirror_code.signed_release("stable", [], archive.keyring)
