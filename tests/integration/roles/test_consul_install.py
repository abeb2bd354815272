"""The role `consul` installs what the checksum says, or nothing."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.roles.playing import Outcome, play

pytestmark = pytest.mark.integration

# No newer Consul can be had here: this one only tells its version, so that what is rendered for it can be seen.
NEWER = '#!/bin/sh\necho "Consul v1.22.6"\n'


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps its log to itself."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    path = folder / "consul_1.22.6_linux.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("consul", NEWER)
    return path


@pytest.fixture
def site(archive: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def variables(tmp_path: Path, archive: Path, site: str) -> dict[str, Any]:
    return {
        "consul_folder": str(tmp_path / "a folder"),
        "consul_cache_folder": str(tmp_path / "cache"),
        "consul_supervisor": "supervisord",
        "consul_install_method": "release",
        "consul_release_url": f"{site}/{archive.name}",
        "consul_free_ports": True,
        "consul_server": True,
    }


def install(tmp_path: Path, variables: dict[str, Any], *options: str, tags: str = "install", **more: Any) -> Outcome:
    return play("consul", tmp_path / "play", variables, "--tags", tags, *options, **more)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_right_archive_is_installed_once(tmp_path: Path, archive: Path, variables: dict[str, Any]) -> None:
    variables["consul_release_sha256"] = sha256(archive)
    first = install(tmp_path, variables)
    assert first.status == 0, first.output
    assert (tmp_path / "a folder" / "bin" / "consul").read_text() == NEWER
    assert [path.name for path in (tmp_path / "cache" / "1.22.6").iterdir()] == ["consul"]
    again = install(tmp_path, variables)
    assert (again.status, again.changed) == (0, 0), again.output


def test_a_wrong_checksum_stops_the_play(tmp_path: Path, archive: Path, variables: dict[str, Any]) -> None:
    variables["consul_release_sha256"] = "0" * 64
    outcome = install(tmp_path, variables)
    assert outcome.status != 0
    assert "0" * 64 in outcome.output
    assert sha256(archive) in outcome.output
    assert not list((tmp_path / "cache").rglob("consul"))
    assert not (tmp_path / "a folder").exists()


def test_a_file_of_checksums_is_as_good(tmp_path: Path, archive: Path, site: str, variables: dict[str, Any]) -> None:
    (archive.parent / "SHA256SUMS").write_text(f"{'1' * 64}  other.zip\n{sha256(archive)}  {archive.name}\n")
    variables["consul_release_sha256sums"] = f"{site}/SHA256SUMS"
    outcome = install(tmp_path, variables)
    assert outcome.status == 0, outcome.output


def test_no_checksum_is_refused_before_anything_is_fetched(tmp_path: Path, variables: dict[str, Any]) -> None:
    outcome = install(tmp_path, variables)
    assert outcome.status != 0
    assert "set consul_release_sha256" in outcome.output
    assert not (tmp_path / "cache").exists()


def test_a_distribution_that_was_never_run_is_refused(tmp_path: Path, variables: dict[str, Any]) -> None:
    variables |= {"consul_supervisor": "systemd", "consul_release_sha256": "0" * 64}
    debian = {"system": "Linux", "architecture": "x86_64", "distribution": "Debian", "distribution_major_version": "11"}
    outcome = install(tmp_path, variables, facts=debian)
    assert outcome.status != 0
    said = " ".join(outcome.output.split())
    assert "here is Debian 11 on x86_64; the role consul supports Debian 12 on x86_64 and aarch64" in said


@pytest.mark.parametrize(("system", "architecture"), [("FreeBSD", "x86_64"), ("Linux", "riscv64")])
def test_another_platform_is_refused(tmp_path: Path, variables: dict[str, Any], system: str, architecture: str) -> None:
    variables["consul_release_sha256"] = "0" * 64
    outcome = install(tmp_path, variables, facts={"system": system, "architecture": architecture})
    assert outcome.status != 0
    said = " ".join(outcome.output.split())
    assert f"here is {system} on {architecture}; the role consul supports Linux on x86_64 and aarch64" in said
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("version", ["1.7.14", "2.0.0"])
def test_another_version_is_refused(tmp_path: Path, variables: dict[str, Any], version: str) -> None:
    outcome = install(tmp_path, variables | {"consul_release_sha256": "0" * 64, "consul_version": version})
    assert outcome.status != 0
    assert f"consul_version is {version}; 1.8 up to the last 1.x are supported" in " ".join(outcome.output.split())
    assert not (tmp_path / "cache").exists()


def test_check_mode_on_an_untouched_host_shows_and_changes_nothing(
    tmp_path: Path, archive: Path, variables: dict[str, Any]
) -> None:
    variables["consul_release_sha256"] = sha256(archive)
    outcome = install(tmp_path, variables, "--check", "--diff", tags="install,configure")
    assert outcome.status == 0, outcome.output
    assert '"node_name": "here"' in outcome.output
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "a folder").exists()


def test_keys_follow_the_installed_version(tmp_path: Path, archive: Path, variables: dict[str, Any]) -> None:
    variables["consul_release_sha256"] = sha256(archive)
    assert install(tmp_path, variables, tags="install,configure").status == 0
    config = json.loads((tmp_path / "a folder" / "etc" / "consul" / "consul.json").read_text())
    assert config["ui_config"] == {"enabled": True}
    assert config["ports"]["grpc_tls"] == -1
    assert "ui" not in config
