"""site.yml on real hosts: from nothing to a fleet, nothing the second time, and nothing at all in check mode."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from hosts.fleet import Fleet, Played
from hosts.lab.image import CHECKOUT

REFERENCE = CHECKOUT / "inventories" / "reference" / "fleet.yml"


def changed_fleet(tmp_path: Path, agent: str, **settings: object) -> Path:
    """A copy of the reference fleet's file with one agent's settings changed."""
    text = yaml.safe_load(REFERENCE.read_text())
    found = [group["agents"][agent] for group in text["groups"].values() if agent in group["agents"]]
    found[0].update(settings)
    text["defaults"]["code"]["path"] = str(CHECKOUT / "examples" / "agents")
    path = tmp_path / "fleet.yml"
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


def test_untouched_hosts_become_a_fleet_across_hosts(fleet: Fleet) -> None:
    fleet.wait_well()
    hosts = {row["host"] for row in fleet.status()["instances"]}
    assert hosts == {"lab1", "lab2", "lab3", "lab4"}
    print(f"site.yml on four untouched hosts: {fleet.first.seconds:.0f} s")


def test_the_second_run_changes_nothing(again: Played) -> None:
    assert (again.status, again.changed) == (0, 0), again.output
    print(f"second run: {again.seconds:.0f} s")


def test_check_mode_shows_a_changed_fleet_and_writes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    path = changed_fleet(tmp_path, "Responder", tier="moved")
    index = "kv/outrider/?recurse&separator=none"
    status, before = fleet.consul("lab1", index)
    newest = (
        "find /etc /opt /var/lib/outrider/releases /usr/local -ignore_readdir_race -newer /root/.mark 2>/dev/null; true"
    )
    for host in fleet.lab.machines():
        fleet.on(host, "touch /root/.mark")
    played = fleet.play("site.yml", "--check", "--diff", fleet_file=str(path))
    assert played.status == 0, played.output
    assert '"tier": "moved"' in played.output or "tier: moved" in played.output, played.output
    assert (status, before) == fleet.consul("lab1", index)
    assert {host: fleet.on(host, newest) for host in fleet.lab.machines()} == dict.fromkeys(fleet.lab.machines(), "")


def test_a_release_that_does_not_come_up_is_put_back(fleet: Fleet, tmp_path: Path) -> None:
    status, before = fleet.consul("lab1", "kv/outrider/fleet/Responder?raw")
    path = changed_fleet(tmp_path, "Responder", module="not_there")
    played = fleet.play("site.yml", "--tags", "always,agents", fleet_file=str(path))
    assert played.status != 0
    assert "put back as it was" in " ".join(played.output.split()), played.output
    fleet.wait_well()
    assert (status, before) == fleet.consul("lab1", "kv/outrider/fleet/Responder?raw")


def test_a_new_shim_is_put_in_place_without_stopping_agents(fleet: Fleet, tmp_path: Path) -> None:
    """The package is another one as soon as a file of it is. It stays: the next `site.yml` puts ours back."""
    package = tmp_path / "python"
    shutil.copytree(CHECKOUT / "python", package, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    (package / "outrider" / "newer.py").write_text('"""A newer release."""\n')
    processes = "systemctl show 'outrider-agent@*' --property=Id,MainPID,ActiveEnterTimestampMonotonic; true"
    shim = "systemctl show outriderd --property=MainPID --value"
    before = {host: (fleet.on(host, processes), fleet.on(host, shim)) for host in fleet.lab.machines()}
    played = fleet.play("site.yml", "--tags", "always,outrider", outrider_package=str(package))
    assert played.status == 0, played.output
    for host, (agents, pid) in before.items():
        assert fleet.on(host, processes) == agents
        assert fleet.on(host, shim) != pid
        assert fleet.on(host, "ls /opt/outrider/venv/lib/python3.11/site-packages/outrider/newer.py")
    fleet.wait_well()


def test_units_carry_users_and_limits(fleet: Fleet) -> None:
    """What systemd would enforce; a lab host cannot, because its cgroups are the machine's."""
    status, docs = fleet.consul("lab1", "kv/outrider/fleet/MemoryClient?raw")
    assert status == 200
    host = next(row["host"] for row in fleet.status()["instances"] if row["agent"] == "MemoryClient")
    shown = dict(
        line.split("=", 1)
        for line in fleet.on(host, "systemctl show outrider-agent@MemoryClient-1").splitlines()
        if "=" in line
    )
    wanted = docs["agent"]["resources"]["memory_mib"] * 1024 * 1024
    assert (shown["User"], int(shown["MemoryMax"])) == ("outrider-agent", wanted)
    assert (shown["NoNewPrivileges"], shown["ProtectSystem"], shown["Restart"]) == ("yes", "strict", "no")
    weights = [
        int(fleet.on(host, f"systemctl show {unit} --property=CPUWeight --value"))
        for unit in ("consul", "outriderd", "outrider-agent@MemoryClient-1")
    ]
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) == 3
