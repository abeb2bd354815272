"""The root file system that every lab host starts from: made once by debootstrap, kept outside the checkout.

Lab hosts have no route out, as many real sites do not: what the roles install as a distribution's package lies in a
repository of files inside the image.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.append(str(CHECKOUT / "roles" / "consul" / "module_utils"))

from debian_mirror import fetch, find, mirrors, signed_release  # noqa: E402 - the role's own file

Run = Callable[..., None]

SUITE = "bookworm"
INSTALLED = (
    *(
        "systemd",
        "systemd-sysv",
        "systemd-resolved",
        "libnss-resolve",
        "libpam-systemd",
        "dbus",
        "polkitd",
        "python3-apt",
    ),
    *("openssh-server", "sudo", "python3", "iproute2", "iputils-ping", "nftables", "procps", "ca-certificates", "curl"),
)
# Offered by the repository inside the image, with all that they depend on.
OFFERED = ("prometheus", "prometheus-node-exporter", "prometheus-alertmanager", "haproxy", "dnsmasq-base", "pipexec")
REPOSITORY = "/srv/packages"
USER, USER_ID = "ops", 1000

FILES = {
    "etc/apt/sources.list": f"deb [trusted=yes] file:{REPOSITORY} ./\n",
    "etc/ssh/sshd_config.d/lab.conf": "PasswordAuthentication no\nPermitRootLogin no\nUseDNS no\n",
    f"etc/sudoers.d/{USER}": f"{USER} ALL=(ALL) NOPASSWD: ALL\nDefaults:{USER} !syslog\n",
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
    # The operator may come in as soon as sshd listens: the unit that lifts the ban at the end of a boot can fail.
    "etc/tmpfiles.d/systemd-nologin.conf": "",
    "etc/machine-id": "",
}


def cache_folder() -> Path:
    """Where downloads and images are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outrider"


def image() -> Path:
    """The root to boot from, built if it is missing or stale. Raises subprocess.CalledProcessError with what failed."""
    recipe = Path(__file__).read_bytes()  # stale as soon as this file says anything else
    folder = cache_folder() / "lab" / hashlib.sha256(recipe).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = folder / "root"
        if not (folder / ".complete").exists():
            print(f"lab: building the hosts' image in {folder} (about a minute, once)", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _build(root, folder / "build.log")
            (folder / ".complete").touch()
            _remove_stale(folder)
    return root


def _remove_stale(current: Path) -> None:
    for other in current.parent.iterdir():
        # One that a running lab stands on is left for the next time.
        if other.is_dir() and other != current and (other / ".complete").exists() and not _in_use(other):
            shutil.rmtree(other, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    for mounts in Path("/proc").glob("[0-9]*/mounts"):
        try:
            if str(folder) in mounts.read_text():
                return True
        except OSError:
            continue
    return False


def _build(root: Path, log: Path) -> None:
    with open(log, "wb") as output:

        def run(*command: str) -> None:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
            if done.returncode:
                tail = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"lab: `{' '.join(command[:3])} ...` failed; {log} ends:\n{tail}")

        mirror, _ = signed_release(SUITE, mirrors())
        run("debootstrap", "--variant=minbase", f"--include={','.join(INSTALLED)}", SUITE, str(root), mirror)
        _offer(root, run)
        _settle(root, run)


def _offer(root: Path, run: Run) -> None:
    """Put the offered packages, with their dependencies, into the image's own repository."""
    repository = root / REPOSITORY.lstrip("/")
    resolver = root / "etc" / "resolv.conf"
    stub = resolver.readlink() if resolver.is_symlink() else None
    resolver.unlink(missing_ok=True)
    shutil.copyfile("/etc/resolv.conf", resolver)
    run("chroot", str(root), "apt-get", "update")
    run("chroot", str(root), "apt-get", "install", "--yes", "--no-install-recommends", "--download-only", *OFFERED)
    if stub:
        resolver.unlink()
        resolver.symlink_to(stub)
    repository.mkdir(parents=True)
    for deb in (root / "var" / "cache" / "apt" / "archives").glob("*.deb"):
        deb.rename(repository / deb.name)
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    mirror, release = signed_release("bullseye", mirrors())
    entry = find("consul", arch, "bullseye", mirror, release)
    (repository / Path(entry.filename).name).write_bytes(fetch(entry, mirror))
    (repository / "Packages").write_text("".join(_stanza(deb) for deb in sorted(repository.glob("*.deb"))))


def _stanza(deb: Path) -> str:
    fields = subprocess.run(["dpkg-deb", "--field", str(deb)], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    return f"{fields.rstrip()}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n"


def _settle(root: Path, run: Run) -> None:
    """What makes a host of it: the operator's account, units that run, and nothing that belongs to one host."""
    run("chroot", str(root), "useradd", "--create-home", "--uid", str(USER_ID), "--shell", "/bin/bash", USER)
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "etc" / "sudoers.d" / USER).chmod(0o440)
    for path in root / "etc" / "fstab", *(root / "etc" / "ssh").glob("ssh_host_*"):
        path.unlink()
    run("systemctl", f"--root={root}", "enable", "systemd-networkd", "systemd-resolved", "ssh")
    run(
        "systemctl",
        f"--root={root}",
        "mask",
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "systemd-networkd-wait-online",
    )
    for folder in ("var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "var" / "lib" / "apt" / "lists" / "partial").mkdir(parents=True)
    (root / "var" / "cache" / "apt" / "archives" / "partial").mkdir(parents=True)
    run("chroot", str(root), "apt-get", "update")
