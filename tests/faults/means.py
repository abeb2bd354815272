"""Faults of what a host lives on: processor, memory, disk and clock."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from faults.scene import Scene

HOGS = 8
STATE, KEPT = "/var/lib/outrider", "/var/lib/outrider.kept"
FILL = f"""
systemctl stop outriderd; rm -rf {KEPT}; cp -a {STATE} {KEPT}
mount -t tmpfs -o size=8m,mode=0711 none {STATE}; cp -a {KEPT}/. {STATE}/
systemctl start outriderd; cat /dev/zero >{STATE}/full
"""
EMPTY = f"""
rm -f {STATE}/full; systemctl stop outriderd
if mountpoint -q {STATE}; then
    rm -rf {KEPT}; cp -a {STATE} {KEPT}; umount {STATE}; find {STATE} -mindepth 1 -delete; cp -a {KEPT}/. {STATE}/
fi
systemctl start outriderd
"""
SQUEEZED_BYTES = 128 << 20
MEMORY = Path("/sys/fs/cgroup/memory")
CLOCK = "/run/outrider/clock"
LIBRARY = "/usr/local/lib/clock.so"
SOURCE = Path(__file__).with_name("clock.c")
DROP_IN = "/run/systemd/system/outriderd.service.d/clock.conf"
STEPPED = f"[Service]\nEnvironment=LD_PRELOAD={LIBRARY} CLOCK_OFF_BY={CLOCK}\n"
RESTART = "systemctl daemon-reload; systemctl restart outriderd"


def starve(scene: Scene) -> None:
    """eight busy loops for 60 s"""
    seconds = scene.lasting(60.0)
    # In sessions of their own, so that each counts as much as a whole host's services; they end by themselves.
    words = ["timeout", "--signal=KILL", str(seconds + 10), "sh", "-c", "while :; do :; done"]
    hogs = [subprocess.Popen(words, start_new_session=True) for _ in range(HOGS)]
    with scene.until_over(seconds, lambda: _kill(hogs)):
        pass


def squeeze(scene: Scene) -> None:
    """memory of a host short for 8 s: what asks for more is stalled or killed"""
    host = scene.holder()[1]
    group = MEMORY / f"{scene.fleet.lab.read()['serial']}-{host}"
    before = _memory_group(os.getpid())
    hogs: list[subprocess.Popen[bytes]] = []

    def undo() -> None:
        _kill(hogs)
        _move(group, before)
        with contextlib.suppress(OSError):
            group.rmdir()

    with scene.until_over(8.0, undo):
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(SQUEEZED_BYTES))
        for pid in _processes(scene, host):
            _put(pid, group)
        # tail keeps the last line, which never ends here.
        eat = f"echo 0 >{group}/cgroup.procs; while :; do tail /dev/zero; done"
        words = ["timeout", "--signal=KILL", "20", "sh", "-c", eat]
        devnull = subprocess.DEVNULL
        hogs += [subprocess.Popen(words, start_new_session=True, stderr=devnull) for _ in range(2)]


def fill_disk(scene: Scene) -> None:
    """disk of a shim's state full for 8 s"""
    host = scene.holder()[1]
    with scene.until_over(8.0, lambda: scene.shell(host, EMPTY)):
        scene.shell(host, FILL)


def step_clock(scene: Scene) -> None:
    """clock of a shim an hour ahead for 4 s, then an hour back for 4 s"""
    host = scene.holder()[1]
    # The hosts share this machine's clock, so only that of one program can be another.
    library = scene.fleet.lab.folder / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
    Path(f"/proc/{scene.fleet.lab.machines()[host].leader()}/root{LIBRARY}").write_bytes(library.read_bytes())
    with scene.until_over(4.0, lambda: scene.shell(host, f"rm -f {DROP_IN} {CLOCK}; {RESTART}; rm -f {LIBRARY}")):
        scene.shell(host, f"mkdir -p {DROP_IN.rpartition('/')[0]}; echo '{STEPPED}' >{DROP_IN}; {RESTART}")
        scene.shell(host, f"echo 3600 >{CLOCK}")
        scene.over.wait(4.0)
        scene.shell(host, f"echo -3600 >{CLOCK}")


def _kill(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _processes(scene: Scene, host: str) -> list[int]:
    """All of a host's, by the namespace of their ids."""
    inside = os.stat(f"/proc/{scene.fleet.lab.machines()[host].leader()}/ns/pid").st_ino
    found = []
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        with contextlib.suppress(OSError):
            if path.stat().st_ino == inside:
                found.append(int(path.parts[2]))
    return found


def _memory_group(pid: int) -> Path:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return MEMORY / next(line for line in lines if ":memory:" in line).split(":", 2)[2].lstrip("/")


def _put(pid: int, group: Path) -> None:
    with contextlib.suppress(OSError):  # it may have ended
        (group / "cgroup.procs").write_text(str(pid))


def _move(group: Path, to: Path) -> None:
    while pids := (group / "cgroup.procs").read_text().split() if group.exists() else []:
        for pid in pids:
            _put(int(pid), to)
