"""What the drop-in of an instance says, and which instances have one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from outrider.errors import FleetError, HostError
from outrider.fleet.spec import Agent, Host, Resources
from outrider.host.unit_files import Change, changes, write
from outrider.host.units import HEADER, cpu_weight, drop_ins

HERE, THERE = Host("here", groups=("gpu",)), Host("there")


def settings(**agent: object) -> list[str]:
    text = drop_ins({"Echo": Agent(command=("echo",), **agent)}, HERE).get("Echo-1", "")
    return text.splitlines()[2:]


def test_an_instance_without_wishes_is_as_the_template_says() -> None:
    assert settings() == []


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ({"user": "alice"}, ["User=alice"]),
        ({"resources": Resources(memory_mib=512)}, ["MemoryMax=512M", "MemorySwapMax=0"]),
        ({"resources": Resources(cpu=0.5)}, ["CPUWeight=50"]),
        ({"state": True}, ["StateDirectory=outrider-agents/Echo-1", "StateDirectoryMode=0700"]),
        ({"stop_timeout_s": 30.2}, ["TimeoutStopSec=36"]),
        ({"python": "/home/alice/venv/bin/python"}, ["ProtectHome=read-only"]),
        ({"environment": {"MODELS": "/root/models"}}, ["ProtectHome=read-only"]),
    ],
)
def test_what_an_agent_declares_is_in_its_unit(agent: dict[str, object], said: list[str]) -> None:
    assert settings(**agent) == said


def test_cpu_is_a_share_in_the_range_that_systemd_knows() -> None:
    assert [cpu_weight(cpu) for cpu in (0.001, 1, 2.5, 1000)] == [1, 100, 250, 10000]


def test_every_instance_that_may_run_here_has_one() -> None:
    agents = {
        "Anywhere": Agent(user="a", count=2),
        "Grouped": Agent(user="a", hosts=("gpu",)),
        "Elsewhere": Agent(user="a", hosts=("there",)),
        "Single": Agent(user="a", mode="singleton", standbys=1, hosts=("here", "there")),
    }
    # and one more of each, for a migration
    expected = ["Anywhere-1", "Anywhere-2", "Anywhere-3", "Grouped-1", "Grouped-2", "Single-1", "Single-2", "Single-3"]
    assert list(drop_ins(agents, HERE)) == expected
    assert "Elsewhere-1" in drop_ins(agents, THERE)


@pytest.mark.parametrize("user", ["root", "outrider", "consul", "0", "a b", "x\nExecStart=/bin/sh", "%u", "-a"])
def test_users_that_would_open_the_host_are_refused_by_agent(user: str) -> None:
    agents = {"Good": Agent(user="alice"), "Bad": Agent(user=user), "Worse": Agent(user=user)}
    with pytest.raises(FleetError) as refused:
        drop_ins(agents, HERE)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["agent Bad", "agent Worse"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    everything = Agent(
        user="daemon",
        resources=Resources(cpu=1.5, memory_mib=256),
        state=True,
        stop_timeout_s=60,
        python="/home/x/bin/python",
    )
    name = "outrider-agent@Echo-1.service"
    (tmp_path / name).write_text("[Service]\nType=exec\nExecStart=/bin/true\n")
    write(changes(tmp_path, drop_ins({"Echo": everything}, HERE)))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / name)]
    environment = {"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    bad = {"Echo-1": "[Service]\nMemryMax=1\n"}
    write(changes(tmp_path, bad))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "MemryMax" in done.stderr  # it did read the drop-in


def test_only_what_differs_is_written_and_only_ours_is_removed(tmp_path: Path) -> None:
    def file(instance: str, name: str = "50-outrider.conf") -> Path:
        return tmp_path / f"outrider-agent@{instance}.service.d" / name

    text = f"{HEADER}\n[Service]\nUser=alice\n"
    write(changes(tmp_path, {"A-1": text, "B-1": text, "C-1": text}))
    assert file("A-1").read_text() == text
    assert file("A-1").stat().st_mode & 0o777 == 0o644
    assert file("A-1").parent.stat().st_mode & 0o777 == 0o755
    file("B-1", "local.conf").write_text("[Service]\nMemoryMax=1G\n")
    file("D-1").parent.mkdir()
    file("D-1").write_text("[Service]\nUser=somebody-elses\n")
    found = changes(tmp_path, {"A-1": text, "E-1": text})
    assert found == [
        Change(file("B-1"), text, None),
        Change(file("C-1"), text, None),
        Change(file("E-1"), None, text),
    ]
    write(found)
    assert file("B-1", "local.conf").exists()
    assert not file("B-1").exists()
    assert not file("C-1").parent.exists()
    assert file("D-1").exists()
    assert changes(tmp_path, {"A-1": text, "E-1": text}) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="nowhere"):
        write(changes(tmp_path / "nowhere", {"A-1": HEADER}))
