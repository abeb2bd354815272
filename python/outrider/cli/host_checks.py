"""What doctor looks at without asking anybody: the machine, the runtime folder, the ports."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from outrider.discovery.reader import Catalogue
from outrider.errors import OutriderError
from outrider.host.config import Config
from outrider.host.ports import is_free, owner_of
from outrider.host.reports import Finding

OPEN_FILES = 1024
FREE_BYTES = 256 * 2**20
FRESH_S = 5.0
SOCKET_BYTES = 107
# What supervisord adds to its socket's name while it makes it: a dot and a pid.
SUPERVISOR_SOCKET = "supervisor.sock.4194304"
FIRST_RELEASE = 1_735_689_600  # 2025-01-01: no clock that is right shows less
TIME_ERROR = 5


def machine(runtime: Path, config: Config | None) -> Iterator[Finding]:
    """Versions, disks, limits, clock."""
    try:
        ours = version("outrider")
    except PackageNotFoundError:
        ours = "not installed"
    yield Finding("versions", True, f"outrider {ours}, Python {platform.python_version()}, Linux {platform.release()}")
    folders = [runtime, config.state_dir, config.log_dir] if config else [runtime]
    yield from disks([folder for folder in folders if folder.is_dir()])
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= OPEN_FILES
    yield Finding("open files", enough, f"limit {soft} a process", "" if enough else f"ulimit -n {OPEN_FILES}, or more")
    yield clock(time.time(), synchronised(), alone=config is None or config.supervisor == "process")


def disks(folders: list[Path]) -> Iterator[Finding]:
    """Room for bytes and for files, once for each file system."""
    seen = set()
    for folder in folders:
        device = folder.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
        full = files.f_files > 0 and files.f_favail < 1000
        ok = free > FREE_BYTES and not full
        what = "no room for more files" if full else f"{free / 2**30:.1f} GiB free"
        mend = "" if ok else "make room there: the catalogue, logs and the agents' state are written to it"
        yield Finding("disk", ok, f"{what} at {folder}", mend)


def synchronised() -> bool | None:
    """Whether the kernel's clock follows a time server; None if it does not say."""
    try:
        # A zeroed struct timex asks and changes nothing; it has 208 bytes.
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def clock(now: float, follows: bool | None, *, alone: bool) -> Finding:
    """A clock that is plainly wrong; or, in a fleet of several hosts, one that follows nobody."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < FIRST_RELEASE:
        return Finding("clock", False, f"{shown} is in the past", "set it: timedatectl set-ntp true")
    if follows is False and not alone:
        return Finding("clock", False, f"{shown}, follows no time server", "timedatectl set-ntp true, or run chrony")
    return Finding("clock", True, shown + ("" if follows else ", follows no time server; one host alone does not mind"))


def folder(runtime: Path) -> Iterator[Finding]:
    """The runtime folder, its rights, the length of its sockets' names, the catalogue in it."""
    if not runtime.is_dir():
        mend = "start the shim (`make demo`, or systemctl start outriderd), or name its folder with --runtime"
        yield Finding("runtime folder", False, f"{runtime} is not there", mend)
        return
    if not os.access(runtime, os.R_OK | os.X_OK):
        mend = f"run this as {_owner(runtime)}, or join the group of {runtime}"
        yield Finding("runtime folder", False, f"{runtime} may not be read by this user", mend)
        return
    yield Finding("runtime folder", True, str(runtime))
    yield socket_path(runtime)
    yield catalogue(runtime)


def socket_path(runtime: Path) -> Finding:
    """The kernel takes 107 bytes. Shim and CLI go round it; supervisord of the embedded mode cannot."""
    length = len(os.fsencode(runtime.absolute() / "outriderd.sock"))
    embedded = (runtime / "supervisord.pid").exists()
    needs = len(os.fsencode(runtime.absolute() / SUPERVISOR_SOCKET))
    if embedded and needs > SOCKET_BYTES:
        mend = "move the checkout nearer to the root, and run `make demo` there"
        return Finding("socket path", False, f"supervisord's socket needs {needs} bytes of {SOCKET_BYTES}", mend)
    over = "" if length <= SOCKET_BYTES else ": too long for curl and others, but not for outrider"
    return Finding("socket path", True, f"{length} of {SOCKET_BYTES} bytes{over}")


def catalogue(runtime: Path) -> Finding:
    """Whether it can be read, and how old it is."""
    try:
        read = Catalogue(runtime)
        count, age_s = len(read.names()), read.age_s
    except OutriderError as error:
        return Finding("catalogue", False, error.message, "start the shim: it writes the catalogue anew")
    if age_s < FRESH_S:
        return Finding("catalogue", True, f"{count} agents, confirmed {age_s:.1f} s ago")
    mend = "bring back the shim or Consul, whichever is wrong here; lookups go on from this snapshot meanwhile"
    return Finding("catalogue", False, f"{count} agents, last confirmed {age_s:.0f} s ago", mend)


def ports(config: Config) -> Iterator[Finding]:
    """With no shim running: whether somebody else sits on its port. Consul's port is known to be wrong by asking it."""
    if is_free(config.http_host, config.http_port):
        return
    mend = "stop that program, or set another http_port; `make demo` chooses one by itself"
    where = f"{config.http_host}:{config.http_port}, the shim's port,"
    yield Finding("port", False, f"{where} is taken by {owner_of(config.http_port)}", mend)


def token_file(path: str) -> Finding:
    """Only its owner, and perhaps its group, may read it."""
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError as error:
        return Finding("token", False, f"{path}: {error.strerror}", "run site.yml: it writes the token of this host")
    if mode & 0o007:
        return Finding("token", False, f"{path} has mode {mode:04o}: everybody may use it", f"chmod 0600 {path}")
    if not os.access(path, os.R_OK):
        return Finding("token", True, f"{path} has mode {mode:04o}; this user may not read it, nor ask Consul")
    return Finding("token", True, f"{path} has mode {mode:04o}")


def host_name() -> str:
    """This machine's own name."""
    return socket.gethostname()


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "its owner"
