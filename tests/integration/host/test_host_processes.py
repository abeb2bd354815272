"""Child processes that outlive the shim: real processes, real kills, a shim killed and the next one adopting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.errors import HostError
from outrider.host.config import Config
from outrider.host.process_supervisor import ProcessSupervisor, Record, found_in_environment
from outrider.host.processes import all_stats, boot_id, environment_of, session_members, stat_of
from outrider.host.supervisor import Exit, Launch, Process

SLEEPER = "import time; time.sleep(300)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"

# A shim of its own process: starts one instance and tells its pid, or dies between the start and the record.
SHIM = """
import asyncio, os, signal, sys
from pathlib import Path
import msgspec
from outrider.host.config import Config
from outrider.host.process_supervisor import ProcessSupervisor
from outrider.host.supervisor import Launch

class Crashing(ProcessSupervisor):
    def _save(self, process):
        print(process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    root = Path(sys.argv[1])
    config = Config("test", "here", root / "run", root / "state", root / "log")
    kind = Crashing if sys.argv[3] == "crash" else ProcessSupervisor
    process = await kind(config).start(msgspec.json.decode(sys.argv[2], type=Launch))
    print(process.pid, flush=True)
    await asyncio.sleep(300)

asyncio.run(main())
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """A shim's folders; whatever still carries an instance of it at the end is killed."""
    config = Config("test", "here", tmp_path / "run", tmp_path / "state", tmp_path / "log")
    yield config
    for name in filter(str.isdigit, os.listdir("/proc")):
        if environment_of(int(name)).get("OUTRIDER_RUNTIME") == str(config.runtime_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)


def launch(config: Config, code: str, instance: str = "Echo-1", version: str = "v1", **changes: object) -> Launch:
    env = {"PATH": os.defpath, "OUTRIDER_RUNTIME": str(config.runtime_dir), "OUTRIDER_INSTANCE": instance}
    env["OUTRIDER_VERSION"] = version
    log_path = str(config.log_dir / "agents" / f"{instance}.log")
    made = Launch(instance, "Echo", (sys.executable, "-c", code), env, "/", log_path, version=version)
    return msgspec.structs.replace(made, **changes)


def run_shim(config: Config, wanted: Launch, how: str = "stay") -> tuple[subprocess.Popen[str], int]:
    """Start a shim in a process of its own; returns it and the pid of its instance."""
    told = (str(config.state_dir.parent), msgspec.json.encode(wanted).decode())
    shim = subprocess.Popen([sys.executable, "-c", SHIM, *told, how], stdout=subprocess.PIPE, text=True)
    assert shim.stdout is not None
    return shim, int(shim.stdout.readline())


async def until(condition, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def ended(supervisor: ProcessSupervisor, process: Process) -> asyncio.Future[Exit]:
    future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    supervisor.watch_exit(process, lambda _: None, lambda _, how: future.set_result(how))
    return future


def log_of(wanted: Launch) -> str:
    return Path(wanted.log_path).read_text()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def gone(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is None or stat.zombie


async def test_an_instance_has_a_session_of_its_own_and_logs(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    wanted = launch(
        config, "import os, sys; print('out'); print('err', file=sys.stderr); print(os.listdir('/proc/self/fd'))"
    )
    process = await supervisor.start(wanted)
    how = await ended(supervisor, process)
    assert how == Exit(code=0, reason="exit status 0")
    text = log_of(wanted)
    assert "out\n" in text
    assert "err\n" in text
    # 0, 1, 2, and the one of listdir itself: nothing of ours was inherited
    assert "['0', '1', '2', '3']" in text
    assert not list((config.state_dir / "processes").glob("*.json"))


async def test_the_log_is_appended_to(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    for word in ("first", "second"):
        await ended(supervisor, await supervisor.start(launch(config, f"print('{word}')")))
    assert log_of(launch(config, "")) == "first\nsecond\n"


async def test_death_is_told_within_milliseconds(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    delays = []
    for _ in range(10):
        process = await supervisor.start(launch(config, SLEEPER))
        told: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        supervisor.watch_exit(process, lambda _, told=told: told.set_result(time.monotonic()), lambda *_: None)
        began = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        delays.append(await told - began)
    assert sorted(delays)[5] < 0.02, delays


async def test_a_signal_is_named(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    process = await supervisor.start(launch(config, SLEEPER))
    how = ended(supervisor, process)
    os.kill(process.pid, signal.SIGKILL)
    assert await how == Exit(signal=9, reason="killed by SIGKILL")


def wait_blocking(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def test_a_process_that_ended_before_it_was_watched_is_told_too(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    process = await supervisor.start(launch(config, "raise SystemExit(3)"))
    wait_blocking(process.pid)  # the event loop shall not have noticed
    assert (await ended(supervisor, process)).code == 3
    assert (await ended(supervisor, process)).reason  # asked again, it answers again


async def test_nothing_becomes_a_zombie(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    processes = [await supervisor.start(launch(config, "pass", f"Echo-{n}")) for n in range(5)]
    await until(lambda: all(stat_of(process.pid) is None for process in processes))


async def test_stop_is_gentle_first(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(300)"
    )
    wanted = launch(config, code)
    process = await supervisor.start(wanted)
    await until(lambda: log_of(wanted) == "up\n")
    how = ended(supervisor, process)
    await supervisor.stop(process, 5.0)
    assert (await how).code == 7


async def test_stop_kills_the_whole_session_after_its_time(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    worker = f"import os; os.setpgid(0, 0); exec({STUBBORN!r})"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {worker!r}]); exec({STUBBORN!r})"
    wanted = launch(config, code)
    process = await supervisor.start(wanted)
    await until(lambda: log_of(wanted).count("deaf") == 2)
    members = [stat.pid for stat in session_members(process.pid)]
    assert len(members) == 2
    began = time.monotonic()
    await supervisor.stop(process, 0.3)
    assert time.monotonic() - began >= 0.3
    await until(lambda: all(gone(pid) for pid in members))


async def test_workers_do_not_outlive_an_instance_that_crashes(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    start = f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])"
    code = f"import subprocess, sys, os; print({start}.pid, flush=True); os.abort()"
    wanted = launch(config, code)
    how = await ended(supervisor, await supervisor.start(wanted))
    assert how.signal == signal.SIGABRT
    worker = int(log_of(wanted).split()[0])
    await until(lambda: gone(worker))


async def test_stopping_what_is_gone_is_no_error(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    process = await supervisor.start(launch(config, "pass"))
    await ended(supervisor, process)
    await supervisor.stop(process, 1.0)


async def test_a_reused_pid_is_not_touched(config: Config, stranger: subprocess.Popen[bytes]) -> None:
    supervisor = ProcessSupervisor(config)
    old = Process("Echo-1", stranger.pid, stat_of(stranger.pid).started - 1, "v1")
    (config.state_dir / "processes" / "Echo-1.json").write_bytes(msgspec.json.encode(Record(old, boot_id())))
    assert supervisor.adopt() == []
    assert (await ended(supervisor, old)).code is None
    await supervisor.stop(old, 0.1)
    assert stranger.poll() is None


async def test_a_record_of_another_boot_is_not_believed(config: Config, stranger: subprocess.Popen[bytes]) -> None:
    supervisor = ProcessSupervisor(config)
    same = Process("Echo-1", stranger.pid, stat_of(stranger.pid).started, "v1")
    path = config.state_dir / "processes" / "Echo-1.json"
    path.write_bytes(msgspec.json.encode(Record(same, "another boot")))
    assert supervisor.adopt() == []
    assert not path.exists()


async def test_the_next_shim_adopts_after_kill_9(config: Config) -> None:
    shim, pid = run_shim(config, launch(config, SLEEPER))
    await until(lambda: bool(list(config.state_dir.glob("processes/*.json"))))
    shim.kill()
    shim.wait()
    supervisor = ProcessSupervisor(config)
    [process] = supervisor.adopt()
    assert (process.instance, process.pid, process.version) == ("Echo-1", pid, "v1")
    assert [again.pid for again in supervisor.adopt()] == [pid]
    how = ended(supervisor, process)
    await supervisor.stop(process, 5.0)
    assert (await how).code is None
    assert supervisor.adopt() == []


@pytest.mark.parametrize("damage", ["crash between start and record", "record lost", "record damaged"])
async def test_a_process_without_a_record_is_found(config: Config, damage: str) -> None:
    how = "crash" if damage.startswith("crash") else "stay"
    shim, pid = run_shim(config, launch(config, SLEEPER), how)
    record = config.state_dir / "processes" / "Echo-1.json"
    if how == "stay":
        await until(record.exists)
        shim.kill()
    shim.wait()
    if damage == "record lost":
        record.unlink()
    if damage == "record damaged":
        record.write_text('{"process": {"inst')
    [process] = ProcessSupervisor(config).adopt()
    assert (process.instance, process.pid, process.version) == ("Echo-1", pid, "v1")
    assert msgspec.json.decode(record.read_bytes(), type=Record).process == process


async def test_of_duplicates_the_younger_is_stopped(config: Config) -> None:
    older, older_pid = run_shim(config, launch(config, SLEEPER), "crash")
    older.wait()
    younger, younger_pid = run_shim(config, launch(config, SLEEPER))
    await until(lambda: bool(list(config.state_dir.glob("processes/*.json"))))
    younger.kill()
    younger.wait()
    assert [process.pid for process in ProcessSupervisor(config).adopt()] == [older_pid]
    await until(lambda: gone(younger_pid))
    assert not gone(older_pid)


async def test_workers_in_sessions_of_their_own_are_no_instances(config: Config) -> None:
    start = f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True)"
    code = f"import subprocess, sys, time; {start}; time.sleep(300)"
    supervisor = ProcessSupervisor(config)
    process = await supervisor.start(launch(config, code))
    await until(lambda: len([p for p in children_of(process.pid)]) == 1)
    assert [found.pid for found in found_in_environment(all_stats(), str(config.runtime_dir))] == [process.pid]
    assert [found.pid for found in ProcessSupervisor(config).adopt()] == [process.pid]


def children_of(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_instances_of_another_fleet_are_left_alone(config: Config, tmp_path: Path) -> None:
    other = msgspec.structs.replace(config, runtime_dir=tmp_path / "other", state_dir=tmp_path / "other-state")
    supervisor = ProcessSupervisor(other)
    process = await supervisor.start(launch(other, SLEEPER))
    assert ProcessSupervisor(config).adopt() == []
    await supervisor.stop(process, 1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"argv": ("/no/such/program",)}, "/no/such/program: No such file or directory"),
        ({"argv": ("/proc/version",)}, "/proc/version: Permission denied"),
        ({"cwd": "/no/such/folder"}, "/no/such/folder: No such file or directory"),
        ({"log_path": "/proc/version/x.log"}, "/proc/version"),
        ({"argv": ("a\0b",)}, "null byte"),
    ],
)
async def test_what_cannot_start_is_refused_with_its_reason(config: Config, changes: dict, said: str) -> None:
    with pytest.raises(HostError) as caught:
        await ProcessSupervisor(config).start(launch(config, SLEEPER, **changes))
    assert said in caught.value.message
    assert caught.value.message.startswith("Echo-1: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
async def test_a_privileged_shim_starts_it_as_its_user(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    wanted = launch(config, "", user="nobody", argv=("/usr/bin/id", "-un"))
    await ended(supervisor, await supervisor.start(wanted))
    assert log_of(wanted) == "nobody\n"
    with pytest.raises(HostError, match="system user no-such-user does not exist"):
        await supervisor.start(launch(config, SLEEPER, user="no-such-user"))


async def test_signals_that_the_shim_ignores_reach_its_instances(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        code = (
            "import signal; print(signal.getsignal(1) is signal.SIG_DFL, signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
        )
        wanted = launch(config, code)
        await ended(supervisor, await supervisor.start(wanted))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert log_of(wanted) == "True set()\n"


async def test_seventy_seven_start_and_are_found_again(config: Config) -> None:
    supervisor = ProcessSupervisor(config)
    wanted = [msgspec.structs.replace(launch(config, "", f"Echo-{n}"), argv=("/bin/sleep", "300")) for n in range(77)]
    processes = [await supervisor.start(one) for one in wanted]
    assert len(ProcessSupervisor(config).adopt()) == 77
    await asyncio.gather(*(supervisor.stop(process, 5.0) for process in processes))
    assert supervisor.adopt() == []
