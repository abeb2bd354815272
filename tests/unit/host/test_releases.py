"""Releases: packed the same by everybody, checked, and there whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import runpy
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from full_disk import full_disk
from outrider.errors import ReleaseError
from outrider.fleet.spec import Code
from outrider.host.packing import without_password
from outrider.host.releases import Packed, install, pack, prune

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder of code with a link, something to run, and what does not belong in a release."""
    folder = tmp_path / "base" / "echo"
    (folder / "inner" / "__pycache__").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "inner" / "__pycache__" / "a.pyc").write_bytes(b"0")
    (folder / "inner" / "stale.pyc").write_bytes(b"0")
    (folder / "echo.py").write_text("print('echo')\n")
    (folder / "inner" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "inner" / "run.sh").chmod(0o700)
    (folder / "link.py").symlink_to("echo.py")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    return tmp_path / "releases"


def packed(code: Path, cache: Path, **more: str) -> Packed:
    return pack(Code(path=code.name, **more), code.parent, cache)


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run([*GIT, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(code: Path) -> str:
    """Make the folder a git repository with one commit; returns the commit."""
    (code / ".git" / "config").unlink()
    (code / ".git").rmdir()
    git(code, "init", "--quiet")
    git(code, "add", "-A")
    git(code, "commit", "--quiet", "-m", "one")
    return git(code, "rev-parse", "HEAD")


def test_a_folder_is_packed_and_installed(code: Path, cache: Path, releases: Path) -> None:
    release = packed(code, cache)
    folder = install(release.archive, release.digest, releases)
    assert folder == releases / release.digest
    assert content(folder) == {"echo.py", "inner/run.sh", "link.py"}
    assert os.access(folder / "inner" / "run.sh", os.X_OK)
    assert not os.access(folder / "echo.py", os.X_OK) or os.geteuid() == 0
    assert os.readlink(folder / "link.py") == "echo.py"
    assert content(releases) == {f"{release.digest}/{name}" for name in content(folder)}


def test_the_digest_depends_on_content_alone(code: Path, cache: Path) -> None:
    first = packed(code, cache)
    os.utime(code / "echo.py", (1, 1))
    (code / "inner" / "run.sh").chmod(0o755)
    (code / "inner" / "__pycache__" / "b.pyc").write_bytes(b"1")
    assert packed(code, cache) == first
    (code / "echo.py").write_text("print('other')\n")
    assert packed(code, cache).digest != first.digest


def test_a_release_that_is_there_is_used(code: Path, cache: Path, releases: Path) -> None:
    release = packed(code, cache)
    folder = install(release.archive, release.digest, releases)
    before = folder.stat().st_ino
    release.archive.unlink()
    assert install(release.archive, release.digest, releases).stat().st_ino == before


def test_a_wrong_checksum_is_refused_with_both(code: Path, cache: Path, releases: Path) -> None:
    release = packed(code, cache)
    with pytest.raises(ReleaseError) as caught:
        packed(code, cache, sha256="0" * 64)
    assert "0" * 64 in caught.value.message
    assert release.digest in caught.value.message
    assert str(code) in caught.value.message
    with pytest.raises(ReleaseError, match=release.digest):
        install(release.archive, "0" * 64, releases)
    assert list(releases.iterdir()) == []


def test_the_right_checksum_is_accepted(code: Path, cache: Path) -> None:
    release = packed(code, cache)
    assert packed(code, cache, sha256=release.digest) == release


@pytest.mark.parametrize("digest", ["", "../x", "0" * 63, "Z" * 64])
def test_what_is_no_checksum_is_refused(code: Path, cache: Path, releases: Path, digest: str) -> None:
    with pytest.raises(ReleaseError, match="not a SHA-256"):
        install(packed(code, cache).archive, digest, releases)


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, data


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil", data=b"x")],
        [member("/rooted-evil", data=b"x")],
        [member("a/../../evil", data=b"x")],
        [member("a", tarfile.SYMTYPE, "/etc")],
        [member("a", tarfile.SYMTYPE, "../..")],
        [member("a/b", tarfile.DIRTYPE), member("a/b/c", tarfile.SYMTYPE, "../../..")],
        # each link alone stays inside, but the second one lies elsewhere than its name says
        [member("a/b", tarfile.SYMTYPE, ".."), member("a/b/c", tarfile.SYMTYPE, "../..")],
        [member("a/c", tarfile.SYMTYPE, "b/../.."), member("a/b", tarfile.SYMTYPE, "..")],
        [member("a", tarfile.LNKTYPE, "/etc/passwd")],
        [member("a", tarfile.FIFOTYPE)],
        [member("a", tarfile.CHRTYPE)],
    ],
)
def test_nothing_leads_out_of_a_release(tmp_path: Path, releases: Path, members: list) -> None:
    archive = tmp_path / "bad.tar"
    digest = tar_of(archive, *members)
    with pytest.raises(ReleaseError):
        install(archive, digest, releases)
    assert list(releases.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_links_inside_may_go_up_and_through(tmp_path: Path, releases: Path) -> None:
    archive = tmp_path / "good.tar"
    link = member("a/up", tarfile.SYMTYPE, "../b")
    digest = tar_of(archive, member("b", tarfile.DIRTYPE), link, member("a/up/file", data=b"x"))
    assert (install(archive, digest, releases) / "b" / "file").read_text() == "x"


def test_a_member_that_comes_twice_is_refused(tmp_path: Path, releases: Path) -> None:
    archive = tmp_path / "twice.tar"
    digest = tar_of(archive, member("a", data=b"1"), member("a", data=b"2"))
    with pytest.raises(ReleaseError, match="File exists"):
        install(archive, digest, releases)


def test_a_damaged_archive_is_refused(code: Path, cache: Path, tmp_path: Path, releases: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(packed(code, cache).archive.read_bytes()[:700])
    with pytest.raises(ReleaseError, match="cannot be unpacked"):
        install(cut, hashlib.sha256(cut.read_bytes()).hexdigest(), releases)
    assert list(releases.iterdir()) == []


def test_a_wheel_is_checked_and_unpacked(tmp_path: Path, cache: Path, releases: Path) -> None:
    wheel = tmp_path / "echo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("echo/__init__.py", "x = 1\n")
    release = pack(Code(wheel=wheel.name), tmp_path, cache)
    assert release.digest == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert content(install(release.archive, release.digest, releases)) == {"echo/__init__.py"}
    wheel.write_text("no zip")
    with pytest.raises(ReleaseError, match="not a wheel"):
        pack(Code(wheel=wheel.name), tmp_path, cache)
    with pytest.raises(ReleaseError, match=r"missing\.whl: no such file"):
        pack(Code(wheel="missing.whl"), tmp_path, cache)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a\\..\\evil"])
def test_a_wheel_cannot_lead_out_either(tmp_path: Path, releases: Path, name: str) -> None:
    wheel = tmp_path / "bad.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(name, "x")
    with pytest.raises(ReleaseError, match="leads out"):
        install(wheel, hashlib.sha256(wheel.read_bytes()).hexdigest(), releases)


@pytest.mark.parametrize("kind", ["commit", "branch", "tag"])
def test_a_commit_has_the_digest_of_its_folder(code: Path, cache: Path, kind: str) -> None:
    as_folder = packed(code, cache)
    commit = repository(code)
    git(code, "tag", "-a", "v1", "-m", "v1")
    ref = {"commit": commit, "branch": "main", "tag": "v1"}[kind]
    (code / "later.py").write_text("not in it")
    release = pack(Code(git=code.name, ref=ref), code.parent, cache)
    assert release.digest == as_folder.digest
    assert release.source == f"{code.name} at {commit}"


def test_an_earlier_commit_can_be_had(code: Path, cache: Path, releases: Path) -> None:
    first = repository(code)
    (code / "later.py").write_text("later")
    git(code, "add", "-A")
    git(code, "commit", "--quiet", "-m", "two")
    release = pack(Code(git=str(code), ref=first), code.parent, cache)
    assert "later.py" not in content(install(release.archive, release.digest, releases))


@pytest.mark.parametrize(
    ("address", "ref", "said"),
    [("echo", "no-such-ref", "no-such-ref"), ("nowhere", "main", "nowhere"), ("echo", "--upload-pack=x", "dash")],
)
def test_a_commit_that_is_not_there_is_named(code: Path, cache: Path, address: str, ref: str, said: str) -> None:
    repository(code)
    with pytest.raises(ReleaseError) as caught:
        pack(Code(git=address, ref=ref), code.parent, cache)
    assert said in str(caught.value)


def test_passwords_of_addresses_are_never_shown(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ReleaseError) as caught:
        pack(Code(git="http://me:hunter2@127.0.0.1:9/x.git", ref="main"), tmp_path, cache)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:9/x.git" in str(caught.value)
    assert without_password("fatal: 'https://u:p@h/r' not found") == "fatal: 'https://h/r' not found"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ReleaseError, match="nowhere: no such folder"):
        pack(Code(path="nowhere"), tmp_path, cache)


def test_packing_leaves_only_the_archive(code: Path, cache: Path) -> None:
    release = packed(code, cache)
    with pytest.raises(ReleaseError):
        packed(code, cache, sha256="0" * 64)
    assert list(cache.iterdir()) == [release.archive]


def test_prune_keeps_what_is_told(code: Path, cache: Path, releases: Path) -> None:
    old = packed(code, cache)
    (code / "echo.py").write_text("new")
    new = packed(code, cache)
    for release in (old, new):
        install(release.archive, release.digest, releases)
    (releases / ".incoming-left").mkdir()
    (releases / "not-ours").mkdir()
    assert prune(releases, {new.digest}) == [old.digest]
    assert sorted(folder.name for folder in releases.iterdir()) == sorted([new.digest, "not-ours"])
    assert prune(releases / "missing", set()) == []


CRASH = """
import os, signal, sys
from pathlib import Path
from outrider.host.releases import install
left = int(sys.argv[4])
def trace(frame, event, argument):
    global left
    if not frame.f_code.co_filename.endswith("releases.py"):
        return None
    if event == "line":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
install(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
"""


def test_a_crash_at_any_line_leaves_no_half_release(tmp_path: Path, releases: Path) -> None:
    """Killed at each line of the installation in turn: what is visible is whole, and the next run succeeds."""
    archive = tmp_path / "small.tar"
    digest = tar_of(archive, member("a", data=b"1"), member("b", data=b"2"))
    line = 0
    while True:
        line += 1
        if (status := crashed_at(archive, digest, releases, line)) == 0:
            break
        assert status == -signal.SIGKILL
        visible = [folder for folder in releases.glob("[!.]*")] if releases.exists() else []
        assert all(content(folder) == {"a", "b"} for folder in visible)
        if visible:
            prune(releases, set())
    assert line > 50
    assert content(releases / digest) == {"a", "b"}
    prune(releases, {digest})
    assert [folder.name for folder in releases.iterdir()] == [digest]


def crashed_at(archive: Path, digest: str, releases: Path, line: int) -> int:
    """Install in a forked process that is killed at its line number `line`; its exit status."""
    script = archive.with_name("crash.py")
    script.write_text(CRASH)
    pid = os.fork()
    if pid == 0:
        sys.argv = ["", str(archive), digest, str(releases), str(line)]
        try:
            runpy.run_path(str(script))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, releases: Path) -> None:
    archive = tmp_path / "big.tar"
    digest = tar_of(archive, member("big", data=b"x" * 300_000))
    with full_disk(100_000), pytest.raises(ReleaseError, match="File too large"):
        install(archive, digest, releases)
    assert list(releases.iterdir()) == []
