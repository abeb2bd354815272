"""From documents to what is started, and the files that are there before it starts."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from pathlib import Path

import msgspec
import pytest

from outrider.errors import HostError
from outrider.fleet.spec import Agent, OnHost, Resources
from outrider.host import deadman
from outrider.host.config import Config
from outrider.host.launch import folders_of, launch_of, prepare
from outrider.host.supervisor import Launch
from outrider.registry.layout import AgentDoc, Placed

PORTS = {"main": 7200, "health": 8200, "debug-http": 9200}
INHERITED = {"PATH": "/bin", "HOME": "/home/me", "AWS_SECRET_ACCESS_KEY": "hunter2", "PYTHONPATH": "/elsewhere"}
PLACED = Placed("Echo-1", "pc1", "v1", entry="pc1")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config("reference", "pc1", tmp_path / "run", tmp_path / "state", tmp_path / "log", address="10.0.0.1")


def doc_of(release: str = "", /, **agent: object) -> AgentDoc:
    return AgentDoc("Echo", "reference", Agent(**agent), "v1", release)


def launched(config: Config, release: str = "", /, **agent: object) -> Launch:
    return launch_of(doc_of(release, **agent), PLACED, config, PORTS, INHERITED)


def test_a_command_gets_its_ports_and_folders(config: Config) -> None:
    words = ("serve", "--port={port}", "{ports.health}", "{address}", "{state}", "{release}")
    launch = launched(config, "abc", command=words, state=True)
    state, release = config.state_dir / "agents" / "Echo-1", config.releases / "abc"
    assert launch.argv == ("serve", "--port=7200", "8200", "10.0.0.1", str(state), str(release))
    assert launch.cwd == str(release)
    assert launch.log_path == str(config.log_dir / "agents" / "Echo-1.log")


def test_what_has_a_dead_man_is_started_by_it_with_its_lease(config: Config) -> None:
    launch = launched(config, command=("serve", "{port}"), mode="singleton", fence="deadman")
    lease = config.runtime_dir / "leases" / "Echo-1"
    assert launch.argv == deadman.command(lease, ("serve", "7200"))
    assert launch.env["OUTRIDER_LEASE"] == str(lease)


def test_a_module_runs_in_its_release(config: Config) -> None:
    launch = launched(config, "abc", module="echo", args=("--port", "{port}"), environment={"PYTHONPATH": "/lib"})
    assert launch.argv == (sys.executable, "-m", "echo", "--port", "7200")
    assert launch.env["PYTHONPATH"] == f"{config.releases / 'abc'}:/lib"
    assert launched(config, module="echo", python="/opt/python").argv[0] == "/opt/python"


def test_without_release_and_state_it_runs_at_the_root(config: Config) -> None:
    launch = launched(config, module="echo")
    assert launch.cwd == "/"
    assert not {"OUTRIDER_RELEASE", "OUTRIDER_STATE", "PYTHONPATH"} & launch.env.keys()
    assert (
        launched(config, module="echo", state=True).cwd
        == launched(config, module="echo", state=True).env["OUTRIDER_STATE"]
    )


def test_it_is_told_who_and_where_it_is(config: Config) -> None:
    env = launched(config, "abc", module="echo", state=True, environment={"OUTRIDER_HOST": "a lie"}).env
    ours = {name.removeprefix("OUTRIDER_"): value for name, value in env.items() if name.startswith("OUTRIDER_")}
    assert ours == {
        "FLEET": "reference",
        "HOST": "pc1",
        "AGENT": "Echo",
        "NEEDS": "",
        "INSTANCE": "Echo-1",
        "VERSION": "v1",
        "RUNTIME": str(config.runtime_dir),
        "STATE": str(config.state_dir / "agents" / "Echo-1"),
        "ADDRESS": "10.0.0.1",
        "PORT": "7200",
        "PORT_MAIN": "7200",
        "PORT_HEALTH": "8200",
        "PORT_DEBUG_HTTP": "9200",
        "CONFIG": str(config.state_dir / "config" / "Echo-1.json"),
        "HEARTBEAT": str(config.runtime_dir / "beats" / "Echo-1"),
        "RELEASE": str(config.releases / "abc"),
    }


def test_it_gets_little_of_the_environment_of_the_shim(config: Config) -> None:
    env = launched(config, module="echo", environment={"HOME": "/home/agent", "GREETING": "hi"}).env
    assert env["PATH"] == "/bin"
    assert env["HOME"] == "/home/agent"
    assert env["GREETING"] == "hi"
    assert not {"AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & env.keys()


def test_threads_are_limited_unless_the_agent_says_otherwise(config: Config) -> None:
    env = launched(config, module="echo", resources=Resources(threads=2), environment={"MKL_NUM_THREADS": "4"}).env
    assert (env["OMP_NUM_THREADS"], env["OPENBLAS_NUM_THREADS"], env["MKL_NUM_THREADS"]) == ("2", "2", "4")
    assert "OMP_NUM_THREADS" not in launched(config, module="echo").env


def test_what_differs_on_its_host_counts(config: Config) -> None:
    hosts = {"pc1": OnHost(environment={"SIDE": "left"}), "pc2": OnHost(environment={"SIDE": "right"})}
    assert launched(config, module="echo", environment={"SIDE": "both"}, hosts=hosts).env["SIDE"] == "left"


def test_the_value_of_a_secret_is_nowhere(config: Config, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter2")
    doc = doc_of(module="echo", secrets={"TOKEN": str(secret)}, config={"a": 1})
    launch = launch_of(doc, PLACED, config, PORTS, INHERITED)
    prepare(launch, doc, PLACED, config)
    assert launch.env["TOKEN_FILE"] == str(secret)
    assert launch.secrets == ("TOKEN_FILE",)
    assert b"hunter2" not in msgspec.json.encode(launch)
    assert not any("hunter2" in path.read_text() for path in config.state_dir.rglob("*") if path.is_file())


def prepared(config: Config, release: str = "", /, **agent: object) -> Launch:
    doc = doc_of(release, **agent)
    launch = launch_of(doc, PLACED, config, PORTS, INHERITED)
    prepare(launch, doc, PLACED, config)
    return launch


def test_its_files_are_there_before_it_starts(config: Config) -> None:
    launch = prepared(config, module="echo", state=True, config={"depth": 3, "nested": {"a": [1, None]}})
    path = Path(launch.env["OUTRIDER_CONFIG"])
    assert json.loads(path.read_text()) == {"depth": 3, "nested": {"a": [1, None]}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Path(launch.env["OUTRIDER_STATE"]).is_dir()
    assert Path(launch.env["OUTRIDER_HEARTBEAT"]).stat().st_mtime == 0


def test_the_heartbeat_of_an_earlier_process_does_not_count(config: Config) -> None:
    beat = folders_of(doc_of(module="echo"), PLACED, config).heartbeat
    prepared(config, module="echo")
    os.utime(beat)
    prepared(config, module="echo")
    assert beat.stat().st_mtime == 0


def test_state_survives_a_restart(config: Config) -> None:
    kept = Path(prepared(config, module="echo", state=True).env["OUTRIDER_STATE"]) / "memory"
    kept.write_text("precious")
    prepared(config, module="echo", state=True)
    assert kept.read_text() == "precious"


def test_a_secret_that_cannot_be_read_is_named(config: Config, tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        prepared(config, module="echo", secrets={"TOKEN": str(tmp_path / "missing")})
    assert f"Echo-1: secret TOKEN: {tmp_path / 'missing'}: No such file" in caught.value.message
    with pytest.raises(HostError, match="Is a directory"):
        prepared(config, module="echo", secrets={"TOKEN": str(tmp_path)})


def test_a_release_that_is_not_installed_is_named(config: Config) -> None:
    with pytest.raises(HostError, match="its release abc is not on this host"):
        prepared(config, "abc", module="echo")


def test_a_folder_that_cannot_be_made_is_named(config: Config) -> None:
    config.state_dir.write_text("a file where a folder should be")
    with pytest.raises(HostError, match=str(config.state_dir)):
        prepared(config, module="echo")


def test_a_disk_that_takes_nothing_more_is_named_by_its_folder(config: Config) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # what fails is a write: it names no file
    try:
        with pytest.raises(HostError, match=f"Echo-1: {config.state_dir}: "):
            prepared(config, module="echo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_with_a_unit_of_its_own_an_agent_has_its_units_folder_and_home(tmp_path: Path) -> None:
    """The unit's user reads the secret and owns the state folder, so neither is the shim's to check or make."""
    config = Config("demo", "pc1", tmp_path / "run", tmp_path / "state", tmp_path / "log", supervisor="systemd")
    launch = prepared(config, module="echo", state=True, secrets={"TOKEN": str(tmp_path / "not-ours")})
    assert launch.env["OUTRIDER_STATE"] == launch.cwd == "/var/lib/outrider-agents/Echo-1"
    assert not Path(launch.cwd).exists()
    assert "HOME" not in launch.env  # exec_agent gives it that of the unit's user
    beat = Path(launch.env["OUTRIDER_HEARTBEAT"])
    assert (beat.stat().st_mode & 0o777, beat.parent.stat().st_mode & 0o011) == (0o600, 0o011)
