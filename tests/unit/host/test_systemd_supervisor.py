"""What is asked of systemctl and how its answers are read; real units are tested on the systemd hosts of the lab."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from outrider.discovery.lease_file import FOREVER_NS, LeaseWriter
from outrider.errors import HostError
from outrider.host import deadman
from outrider.host.config import Config
from outrider.host.launch_file import hand_over, launch_file
from outrider.host.processes import stat_of
from outrider.host.supervisor import Exit, Launch, Process
from outrider.host.systemd_supervisor import (
    SystemdSupervisor,
    Unit,
    kill_command,
    parse_show,
    parse_user,
    show_command,
    unit_of,
)

SHOWN = """\
MainPID=812
Result=success
ExecMainCode=0
ExecMainStatus=0
Id=outrider-agent@Echo-1.service
ActiveState=active

MainPID=0
Result=exit-code
ExecMainCode=1
ExecMainStatus=3
Id=outrider-agent@Sensor_Hub-2.service
ActiveState=failed

MainPID=0
ExecMainCode=2
ExecMainStatus=9
Id=outrider-agent@Echo-3.service
ActiveState=failed

MainPID=1
Id=ssh.service
"""


def test_units_are_read() -> None:
    running, failed, killed = parse_show(SHOWN)
    assert running == Unit("outrider-agent@Echo-1.service", 812, "active", "success", 0, 0)
    assert running.instance == "Echo-1"
    assert failed.instance == "Sensor_Hub-2"
    assert failed.ended() == Exit(code=3, reason="exit status 3")
    assert killed.ended() == Exit(signal=9, reason="killed by SIGKILL")
    assert running.ended().code is None
    out_of_memory = replace(killed, result="oom-kill").ended()
    assert out_of_memory == Exit(signal=9, reason="killed by SIGKILL: out of memory")


def test_the_unit_says_whose_it_is() -> None:
    assert parse_user("u", "LoadState=loaded\nUser=alice\n") == "alice"
    assert parse_user("u", "LoadState=loaded\nUser=\n") == "root"
    for text in ("LoadState=not-found\nUser=\n", ""):
        with pytest.raises(HostError, match=r"u: its template is not[- ](found|known)") as refused:
            parse_user("u", text)
        assert "site.yml" in refused.value.hint


@pytest.mark.parametrize("text", ["", "\n\n", "MainPID=\nId=outrider-agent@", "nonsense"])
def test_answers_without_units_are_empty_or_zero(text: str) -> None:
    assert all(unit.main_pid == 0 for unit in parse_show(text))


def test_commands() -> None:
    assert unit_of("Echo-1") == "outrider-agent@Echo-1.service"
    shown = "--property=Id,MainPID,ActiveState,Result,ExecMainCode,ExecMainStatus"
    assert show_command(["a", "b"]) == ["systemctl", "show", shown, "--", "a", "b"]
    told = ["systemctl", "kill", "--kill-who=main", "--signal=SIGTERM", "--", "u"]
    assert kill_command("u", "main", signal.SIGTERM) == told


ME = str(os.geteuid())


def launch(folder: Path, **changes: object) -> Launch:
    env = {"PATH": os.defpath, "GREETING": "hello"}
    code = "import os; print(os.environ['GREETING'], os.getcwd())"
    made = Launch("Echo-1", "Echo", (sys.executable, "-c", code), env, "/", str(folder / "agents" / "Echo-1.log"))
    return replace(made, **changes)


def exec_agent(state_dir: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, what the log holds, and what went to the journal."""
    command = [sys.executable, "-I", "-m", "outrider.host.exec_agent", *arguments, "--state-dir", str(state_dir)]
    pipe = subprocess.PIPE
    done = subprocess.run(
        command, stdout=pipe, stderr=subprocess.STDOUT, text=True, check=False, start_new_session=True
    )  # a session of its own, as systemd makes it
    log = state_dir / "agents" / "Echo-1.log"
    return done.returncode, log.read_text() if log.exists() else "", done.stdout


def test_the_unit_becomes_the_program_and_writes_to_the_log(tmp_path: Path) -> None:
    path = hand_over(tmp_path, launch(tmp_path), ME)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert exec_agent(tmp_path, "Echo-1") == (0, "hello /\n", "")
    hand_over(tmp_path, launch(tmp_path), ME)
    assert exec_agent(tmp_path, "Echo-1") == (0, "hello /\nhello /\n", "")


def test_a_unit_with_a_dead_man_becomes_the_program_under_its_lease_alone(tmp_path: Path) -> None:
    path = tmp_path / "leases" / "Echo-1"
    lease, plain = LeaseWriter(path), launch(tmp_path)
    hand_over(tmp_path, replace(plain, argv=deadman.command(path, plain.argv)), ME)
    status, said, _ = exec_agent(tmp_path, "Echo-1")
    assert (status, said) == (deadman.NO_LEASE, f"outrider: not started: {path} says that no lease is held\n")
    lease.grant(7, FOREVER_NS)
    assert exec_agent(tmp_path, "Echo-1")[:2] == (0, said + "hello /\n")
    lease.close()


def test_the_program_knows_its_user_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    show = (sys.executable, "-c", "import os; print(os.environ['HOME'], os.environ['USER'])")
    user = pwd.getpwuid(os.getuid())
    hand_over(tmp_path, launch(tmp_path, argv=show), ME)
    assert exec_agent(tmp_path, "Echo-1")[1] == f"{user.pw_dir} {user.pw_name}\n"
    hand_over(tmp_path, launch(tmp_path, argv=show, env={"HOME": "/elsewhere"}), ME)
    assert exec_agent(tmp_path, "Echo-1")[1].endswith(f"/elsewhere {user.pw_name}\n")


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"argv": ("/no/such/program",)}, 127, "/no/such/program: No such file or directory"),
        ({"argv": ("/proc/version",)}, 126, "/proc/version: Permission denied"),
        ({"cwd": "/no/such/folder"}, 127, "/no/such/folder: No such file or directory"),
        ({"env": {"KEY_FILE": "/no/key"}, "secrets": ("KEY_FILE",)}, 78, "secret KEY_FILE: /no/key: cannot be read"),
    ],
)
def test_what_cannot_run_says_why_in_its_log(
    tmp_path: Path, changes: dict[str, object], status: int, said: str
) -> None:
    hand_over(tmp_path, launch(tmp_path, **changes), ME)
    assert exec_agent(tmp_path, "Echo-1") == (status, f"outrider: {said}\n", "")


def test_a_launch_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert exec_agent(tmp_path, "Echo-1")[0] == 78
    hand_over(tmp_path, launch(tmp_path), ME)
    launch_file(tmp_path, "Echo-1").write_text("{")
    status, _, said = exec_agent(tmp_path, "Echo-1")
    assert status == 78
    assert str(launch_file(tmp_path, "Echo-1")) in said


def test_a_log_that_leads_elsewhere_is_not_written(tmp_path: Path) -> None:
    hand_over(tmp_path, launch(tmp_path), ME)
    log, target = tmp_path / "agents" / "Echo-1.log", tmp_path / "target"
    target.touch()
    log.unlink()
    log.symlink_to(target)
    assert exec_agent(tmp_path, "Echo-1") == (78, "", f"outrider: {log}: Too many levels of symbolic links\n")
    with pytest.raises(HostError, match=r"Echo-1\.log"):
        hand_over(tmp_path, launch(tmp_path), ME)


@pytest.mark.skipif(os.path.exists("/run/systemd/system"), reason="this machine runs systemd")
async def test_without_systemd_it_says_so(tmp_path: Path) -> None:
    supervisor = SystemdSupervisor(Config("test", "here", tmp_path, tmp_path, tmp_path))
    with pytest.raises(HostError, match="systemctl"):
        supervisor.adopt()
    with pytest.raises(HostError, match=r"outrider-agent@Echo-1\.service"):
        await supervisor.start(launch(tmp_path))


def test_what_was_removed_leaves_no_launch_file(tmp_path: Path) -> None:
    supervisor = SystemdSupervisor(Config("test", "here", tmp_path, tmp_path, tmp_path))
    for name in ("Echo-1", "Echo-2"):
        hand_over(tmp_path, launch(tmp_path, instance=name), ME)
    supervisor.forget("Echo-1")
    assert not launch_file(tmp_path, "Echo-1").exists()
    assert launch_file(tmp_path, "Echo-2").exists()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that another one than the shim started, as systemd does."""
    with subprocess.Popen(["sleep", "60"]) as made:
        yield made
        made.kill()


async def test_a_death_is_told_before_systemd_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    systemctl, go_on = tmp_path / "systemctl", tmp_path / "go-on"
    shown = "Id=outrider-agent@Echo-1.service\\nMainPID=0\\nExecMainCode=2\\nExecMainStatus=9"
    systemctl.write_text(f"#!/bin/sh\nwhile [ ! -e '{go_on}' ]; do sleep 0.01; done\nprintf '{shown}\\n'\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    supervisor = SystemdSupervisor(Config("test", "here", tmp_path, tmp_path, tmp_path))
    running = stat_of(child.pid)
    assert running is not None
    died, how = asyncio.Event(), asyncio.get_running_loop().create_future()
    process = Process("Echo-1", child.pid, running.started)
    supervisor.watch_exit(process, lambda _: died.set(), lambda _, ended: how.set_result(ended))
    child.kill()
    async with asyncio.timeout(0.8):  # less than what systemctl may take
        await died.wait()
    assert not how.done()
    go_on.touch()
    assert (await how).signal == signal.SIGKILL
