"""All wheels of a project's venv on hosts without internet, in one archive that is named by its content.

Made on the controller. Compressing would save 0.3 % of it (measured): wheels are compressed already.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import Struct

from outrider.host.closure import Pins, closure
from outrider.host.wheels import PLATFORMS, build, copy_sources, fetch

# Hosts unpack the wheels with it: they may have no pip. One version, so that every controller makes the same archive.
PIP = {"pip": "26.3"}
UNKNOWN = "not built yet"
ARCHIVE = "wheelhouse.tar"
SCRATCH = ".building-"
KEPT = 4
ABANDONED_S = 86400


class Order(Struct, frozen=True):
    """What a wheelhouse is made of and for; `alone` are requirement files whose lines need nothing else."""

    project: Path
    lock: Path
    cache: Path
    python_version: str
    architecture: str
    extras: tuple[str, ...] = ()
    alone: tuple[Path, ...] = ()


class Wheelhouse(Struct, frozen=True):
    """`digest`: SHA-256 of what `sha256sum *.whl` prints; `packages`: what a host installs, as name==version."""

    digest: str
    archive: str
    packages: list[str]
    bytes: int


def wheelhouse(order: Order, *, dry: bool = False) -> tuple[Wheelhouse, bool]:
    """The wheelhouse, and whether it is new. Dry, nothing is fetched or kept, and the digest may be UNKNOWN.

    Raises ReleaseError if the lock has not what is needed, or a wheel cannot be fetched or built.
    """
    pins = closure(order.project, order.extras, order.alone, order.lock, order.python_version, order.architecture)
    fetched = order.cache / "wheels" / _key({**pins, **PIP}, order)
    if not dry:
        order.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=None if dry else order.cache) as name:
        scratch = Path(name)
        # One copy is both named and built: the checkout may change meanwhile.
        copy_sources(order.project, scratch / "sources")
        record = order.cache / f"{_key({**pins, **PIP}, order, _checksum(scratch / 'sources'))}.json"
        known = _recorded(record, order.cache)
        if dry and not known and not fetched.is_dir():
            return Wheelhouse(UNKNOWN, str(order.cache / "unknown.tar"), _packages(pins), 0), True
        made = known or _make(pins, order, fetched, scratch)
        if not dry:
            _keep(made, record, fetched, scratch)
    return made, known is None


def _make(pins: Pins, order: Order, fetched: Path, scratch: Path) -> Wheelhouse:
    if not fetched.is_dir():
        fetch(_packages({**pins, **PIP}), order.python_version, order.architecture, fetched)
    wheels = [*fetched.glob("*.whl"), build(scratch / "sources", scratch / "built")]
    return _packed(wheels, scratch / ARCHIVE, order)


def _keep(made: Wheelhouse, record: Path, fetched: Path, scratch: Path) -> None:
    """Put what was made into the cache, the record last, and let go of what was not used for long."""
    archive = Path(made.archive)
    if (scratch / ARCHIVE).exists():
        (scratch / ARCHIVE).replace(archive)
        (scratch / "record").write_bytes(msgspec.json.encode(made))
        (scratch / "record").replace(record)
        _prune(record.parent)
    for used in (archive, fetched):
        if used.exists():
            os.utime(used)


def _recorded(record: Path, cache: Path) -> Wheelhouse | None:
    try:
        known = msgspec.json.decode(record.read_bytes(), type=Wheelhouse)
        archive = cache / Path(known.archive).name  # the cache may have been moved
        same = archive.stat().st_size == known.bytes
        return msgspec.structs.replace(known, archive=str(archive)) if same else None
    except (OSError, msgspec.DecodeError):
        return None


def _key(pins: Pins, order: Order, sources: str = "") -> str:
    # Who builds is part of what is built: its version stands in the wheel.
    builder = metadata.version("setuptools") if sources else ""
    parts = [pins, order.python_version, order.architecture, PLATFORMS, sources, builder]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _checksum(sources: Path) -> str:
    files = sorted(path for path in sources.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(sources)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _packed(wheels: list[Path], archive: Path, order: Order) -> Wheelhouse:
    ordered = sorted(wheels, key=lambda wheel: wheel.name)
    lines = "".join(f"{_sha256(wheel)}  {wheel.name}\n" for wheel in ordered)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    packages = ["==".join(wheel.name.split("-")[:2]).replace("_", "-") for wheel in ordered]
    packages = [package for package in packages if package not in _packages(PIP)]
    about = {"digest": digest, "python": order.python_version, "architecture": order.architecture, "packages": packages}
    with tarfile.open(archive, "w") as tar:
        manifest = (json.dumps(about, indent=1) + "\n").encode()
        tar.addfile(_member("manifest.json", len(manifest)), io.BytesIO(manifest))
        for wheel in ordered:
            with wheel.open("rb") as content:
                tar.addfile(_member(wheel.name, wheel.stat().st_size), content)
    return Wheelhouse(digest, str(order.cache / f"{digest}.tar"), packages, archive.stat().st_size)


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def _packages(pins: Pins) -> list[str]:
    return [f"{name}=={version}" for name, version in pins.items()]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _prune(cache: Path) -> None:
    """Keep what was used last, of archives and of wheels fetched for them."""

    def age(path: Path) -> float:
        return time.time() - path.stat().st_mtime

    def oldest(pattern: str) -> list[Path]:
        return sorted(cache.glob(pattern), key=age)[KEPT:]

    for left in (*cache.glob(f"{SCRATCH}*"), *cache.glob("wheels/.*")):
        if age(left) > ABANDONED_S:
            shutil.rmtree(left)
    for archive in oldest("*.tar"):
        archive.unlink()
    for wheels in oldest("wheels/[0-9a-f]*"):
        shutil.rmtree(wheels)
    for record in cache.glob("*.json"):
        if not _recorded(record, cache):
            record.unlink()
