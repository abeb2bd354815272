"""An agent's code, from where the fleet file says it is, packed into one file named by its checksum.

The same content gives the same file, whoever packs it and when: times, owners and order are left out.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from outrider.errors import ReleaseError
from outrider.fleet.spec import Code
from outrider.host.checksums import check_digest, digest_of

LEFT_OUT = frozenset({"__pycache__", ".git", ".hg", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
LEFT_OUT_SUFFIXES = (".pyc", ".pyo")
GIT_TIMEOUT_S = 300.0


class Packed(Struct, frozen=True):
    """A packed release. `digest`: SHA-256 of the file `archive` in hex; `source`: what it was packed from."""

    digest: str
    archive: Path
    source: str = ""


def pack(code: Code, base: Path, cache: Path) -> Packed:
    """Pack code into `cache`; paths are relative to `base`. The same content is packed into the same file.

    Raises ReleaseError if it is not there, or differs from `code.sha256`.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=cache) as name:
        scratch = Path(name) / "release"
        try:
            source = _fill(code, base, scratch)
            digest = digest_of(scratch)
            if code.sha256:
                check_digest(scratch, code.sha256)
        except OSError as error:
            raise ReleaseError(f"{error.filename}: {error.strerror or error}") from error
        except ReleaseError as error:
            raise ReleaseError(error.message.replace(str(scratch), _named(code, base)), hint=error.hint) from error
        archive = cache / f"{digest}{'.whl' if code.wheel else '.tar'}"
        scratch.replace(archive)
    return Packed(digest, archive, source)


def _fill(code: Code, base: Path, scratch: Path) -> str:
    """Write the archive; returns what it was made of, for people."""
    if code.path is not None:
        _pack_folder(base / code.path, scratch)
        return str(base / code.path)
    if code.wheel is not None:
        return _take_wheel(base / code.wheel, scratch)
    if code.git is not None:
        return _pack_commit(code.git, code.ref or "HEAD", base, scratch)
    raise ReleaseError("code names neither path, wheel nor git", hint="give exactly one of them")


def _named(code: Code, base: Path) -> str:
    if code.git is not None:
        return f"{without_password(code.git)} at {code.ref}"
    return str(base / (code.path or code.wheel or ""))


def _pack_folder(folder: Path, scratch: Path) -> None:
    if not folder.is_dir():
        raise ReleaseError(f"{folder}: no such folder", hint="code.path is relative to the fleet file")
    with tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as tar:
        for path, name in _content(folder, ""):
            tar.addfile(*_member(path, name))


def _content(folder: Path, prefix: str) -> Iterator[tuple[Path, str]]:
    """Files, links and folders in an order that depends on names alone."""
    for entry in sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name)):
        if entry.name in LEFT_OUT or entry.name.endswith(LEFT_OUT_SUFFIXES):
            continue
        yield Path(entry.path), prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _content(Path(entry.path), f"{prefix}{entry.name}/")


def _member(path: Path, name: str) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    info = tarfile.TarInfo(name)
    if path.is_symlink():
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        return info, None
    if path.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        return info, None
    if not path.is_file():
        raise ReleaseError(f"{path}: neither a file, a folder nor a symbolic link")
    content = path.read_bytes()
    info.size = len(content)
    info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    return info, io.BytesIO(content)


def _take_wheel(wheel: Path, scratch: Path) -> str:
    if not wheel.is_file():
        raise ReleaseError(f"{wheel}: no such file", hint="code.wheel is relative to the fleet file")
    shutil.copyfile(wheel, scratch)
    try:
        with zipfile.ZipFile(scratch) as content:
            damaged = content.testzip()
    except zipfile.BadZipFile as error:
        raise ReleaseError(f"{wheel}: not a wheel: {error}") from error
    if damaged:
        raise ReleaseError(f"{wheel}: {damaged} in it is damaged")
    return str(wheel)


def _pack_commit(address: str, ref: str, base: Path, scratch: Path) -> str:
    """The tree of one commit. It is fetched into a bare repository of its own, so a moving ref is read once."""
    if ref.startswith("-") or address.startswith("-"):
        raise ReleaseError(f"git {address} {ref}: neither may begin with a dash")
    repository = scratch.with_name("git")
    local = base / address
    where = str(local.resolve()) if local.exists() else address
    shown = f"{without_password(address)} at {ref}"
    _git("init", "--quiet", "--bare", str(repository), shown=shown)
    # The address may hold a password: in a file only we can read, not among arguments that everybody can.
    with open(repository / "config", "a", opener=lambda name, flags: os.open(name, flags, 0o600)) as config:
        config.write('[remote "origin"]\n\turl = "' + where.replace("\\", "\\\\").replace('"', '\\"') + '"\n')
    commit = _fetch(repository, ref, shown)
    tree = _git("-C", str(repository), "archive", "--format=tar", commit, shown=shown)
    _without_times(tree, scratch)
    return f"{without_password(address)} at {commit}"


def _fetch(repository: Path, ref: str, shown: str) -> str:
    """Fetch a tag, branch or commit; returns the commit. Servers may refuse a bare commit: then all is fetched."""
    where = ("-C", str(repository))
    try:
        _git(*where, "fetch", "--quiet", "--depth=1", "origin", ref, shown=shown)
        wanted = "FETCH_HEAD"
    except ReleaseError:
        _git(*where, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/heads/*", shown=shown)
        wanted = ref
    found = _git(*where, "rev-parse", "--verify", "--end-of-options", f"{wanted}^{{commit}}", shown=shown)
    return found.decode().strip()


def _without_times(tree: bytes, scratch: Path) -> None:
    """The same members in the folder's form, so that a commit and a folder with its content have one digest."""
    with tarfile.open(fileobj=io.BytesIO(tree)) as source, tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as tar:
        members = sorted(source.getmembers(), key=lambda member: [os.fsencode(p) for p in member.name.split("/")])
        for member in members:
            if LEFT_OUT.intersection(member.name.split("/")) or member.name.endswith(LEFT_OUT_SUFFIXES):
                continue
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.size = member.type, member.linkname, member.size
            executable = member.isdir() or member.mode & 0o100
            info.mode = 0o777 if member.issym() else 0o755 if executable else 0o644
            tar.addfile(info, source.extractfile(member) if member.isfile() else None)


def _git(*arguments: str, shown: str) -> bytes:
    env = os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "LC_ALL": "C"}
    env = {name: value for name, value in env.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    try:
        done = subprocess.run(["git", *arguments], env=env, capture_output=True, timeout=GIT_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise ReleaseError(f"git {shown}: git is not installed here", hint="install git on the controller") from None
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"git {shown}: no end after {GIT_TIMEOUT_S:g} s") from None
    if done.returncode:
        reason = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise ReleaseError(
            f"git {shown}: {without_password(reason[-1]) if reason else 'no reason given'}",
            hint="check code.git and code.ref",
        )
    return done.stdout


def without_password(text: str) -> str:
    """An address, or a line that quotes one, without user and password."""
    return re.sub(r"://[^/@\s]+@", "://", text)
