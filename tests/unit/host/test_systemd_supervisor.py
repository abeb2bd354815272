"""What is asked of systemctl and how its answers are read; real units are tested on the systemd hosts of the lab."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from outrider.errors import HostError
from outrider.host.config import Config
from outrider.host.launch_file import launch_file, save_launch
from outrider.host.supervisor import Exit, Launch
from outrider.host.systemd_supervisor import SystemdSupervisor, Unit, kill_command, parse_show, show_command, unit_of

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


@pytest.mark.parametrize("text", ["", "\n\n", "MainPID=\nId=outrider-agent@", "nonsense"])
def test_answers_without_units_are_empty_or_zero(text: str) -> None:
    assert all(unit.main_pid == 0 for unit in parse_show(text))


def test_commands() -> None:
    assert unit_of("Echo-1") == "outrider-agent@Echo-1.service"
    shown = "--property=Id,MainPID,ActiveState,Result,ExecMainCode,ExecMainStatus"
    assert show_command(["a", "b"]) == ["systemctl", "show", shown, "--", "a", "b"]
    told = ["systemctl", "kill", "--kill-who=main", "--signal=SIGTERM", "--", "u"]
    assert kill_command("u", "main", signal.SIGTERM) == told


def launch(**changes: object) -> Launch:
    env = {"PATH": os.defpath, "GREETING": "hello"}
    code = "import os; print(os.environ['GREETING'], os.getcwd())"
    made = Launch("Echo-1", "Echo", (sys.executable, "-c", code), env, "/", "/dev/null")
    return msgspec.structs.replace(made, **changes)


def exec_agent(state_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "outrider.host.exec_agent", *arguments, "--state-dir", str(state_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_unit_becomes_the_program(tmp_path: Path) -> None:
    path = save_launch(tmp_path, launch())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = exec_agent(tmp_path, "Echo-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello /\n", "")


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"argv": ("/no/such/program",)}, 127, "/no/such/program: No such file or directory"),
        ({"argv": ("/proc/version",)}, 126, "/proc/version: Permission denied"),
        ({"cwd": "/no/such/folder"}, 127, "/no/such/folder: No such file or directory"),
        ({"env": {"KEY_FILE": "/no/key"}, "secrets": ("KEY_FILE",)}, 78, "secret KEY_FILE: /no/key: cannot be read"),
    ],
)
def test_what_cannot_run_says_why(tmp_path: Path, changes: dict[str, object], status: int, said: str) -> None:
    save_launch(tmp_path, launch(**changes))
    done = exec_agent(tmp_path, "Echo-1")
    assert (done.returncode, done.stderr) == (status, f"outrider: {said}\n")


def test_a_launch_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert exec_agent(tmp_path, "Echo-1").returncode == 78
    save_launch(tmp_path, launch())
    launch_file(tmp_path, "Echo-1").write_text("{")
    done = exec_agent(tmp_path, "Echo-1")
    assert done.returncode == 78
    assert str(launch_file(tmp_path, "Echo-1")) in done.stderr


@pytest.mark.skipif(os.path.exists("/run/systemd/system"), reason="this machine runs systemd")
async def test_without_systemd_it_says_so(tmp_path: Path) -> None:
    supervisor = SystemdSupervisor(Config("test", "here", tmp_path, tmp_path, tmp_path))
    with pytest.raises(HostError, match="systemctl"):
        supervisor.adopt()
    with pytest.raises(HostError, match=r"outrider-agent@Echo-1\.service"):
        await supervisor.start(launch())


def test_what_was_removed_leaves_no_launch_file(tmp_path: Path) -> None:
    supervisor = SystemdSupervisor(Config("test", "here", tmp_path, tmp_path, tmp_path))
    for name in ("Echo-1", "Echo-2"):
        save_launch(tmp_path, Launch(name, "Echo", ("true",), {}, "/", ""))
    supervisor.forget("Echo-1")
    assert not launch_file(tmp_path, "Echo-1").exists()
    assert launch_file(tmp_path, "Echo-2").exists()
