"""Backups on systemd hosts: by the timer's hardened unit, put back by playbook, and a whole fleet on empty hosts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hosts.fleet import Fleet

BACKUPS = "/var/lib/outrider-backups"
MARK = 'cd /var/lib/outrider-agents && for d in *; do echo "$d" >"$d/marker"; done'
MARKED = 'cd /var/lib/outrider-agents && for d in *; do [ "$(cat "$d/marker")" = "$d" ] && echo 1; done | wc -l'
PUT_BACK = """
outrider backup list --json | python3 -c '
import json, sys
for name in sorted({row["instance"] for row in json.load(sys.stdin)["backups"] if row["level"] == "state"}):
    print(name)
' | while read name; do outrider backup restore "$name" --level state --apply || exit 1; done
"""


def backed_up(fleet: Fleet, host: str) -> list[dict[str, Any]]:
    """By the unit that the timer starts; what the host then has."""
    began = time.monotonic()
    fleet.on(host, "systemctl start outrider-backup || { journalctl -u outrider-backup -n 30 --no-pager; exit 1; }")
    rows: list[dict[str, Any]] = json.loads(fleet.on(host, "outrider backup list --json"))["backups"]
    print(f"{host}: {len(rows)} backups, {time.monotonic() - began:.1f} s")
    return rows


def instances(fleet: Fleet, host: str) -> set[str]:
    return {row["instance"] for row in fleet.status()["instances"] if row["host"] == host}


@pytest.mark.parametrize(("host", "consul"), [("lab1", {"kv", "snapshot"}), ("lab4", set())])
def test_the_timers_unit_backs_up_all_that_a_host_has(fleet: Fleet, host: str, consul: set[str]) -> None:
    fleet.wait_well()
    assert fleet.on(host, "systemctl is-enabled outrider-backup.timer").strip() == "enabled"
    assert fleet.on(host, "systemctl is-active outrider-backup.timer").strip() == "active"
    rows = backed_up(fleet, host)
    assert {row["instance"] for row in rows if row["level"] == "state"} == instances(fleet, host)
    assert {row["level"] for row in rows if not row["agent"]} == consul
    assert all(row["verified_at"] for row in rows)
    status, known = fleet.consul("lab2", "kv/outrider/backups/?keys")
    assert status == 200
    assert {f"outrider/backups/{row['agent'] or '.fleet'}" for row in rows} <= set(known)
    # Again at once: nothing changed since, but what agents wrote to their state meanwhile.
    again = {row["id"] for row in backed_up(fleet, host) if row["level"] == "configuration"}
    assert again == {row["id"] for row in rows if row["level"] == "configuration"}


def test_only_root_sees_backups(fleet: Fleet) -> None:
    assert fleet.on("lab1", f"stat -c '%a %U' {BACKUPS}").strip() == "700 root"
    for user in ("outrider", "outrider-agent", "consul"):
        assert "denied" in fleet.on("lab1", f"runuser -u {user} -- ls {BACKUPS} 2>&1; true")
    assert fleet.on("lab1", f"find {BACKUPS} -type f ! -perm 600 -o -type d ! -perm 700").strip() == ""


def test_a_state_is_put_back_by_the_playbook(fleet: Fleet) -> None:
    fleet.wait_well()
    name = sorted(instances(fleet, "lab2"))[0]
    folder = f"/var/lib/outrider-agents/{name}"
    fleet.on("lab2", f"echo before >{folder}/mine && outrider backup create {name} --level state")
    fleet.on("lab2", f"echo after >{folder}/mine")
    checked = fleet.play("restore.yml", "--limit", "lab2", "--check", "--diff", backup=name, level="state")
    assert checked.status == 0, checked.output
    assert fleet.on("lab2", f"cat {folder}/mine").strip() == "after"
    played = fleet.play("restore.yml", "--limit", "lab2", backup=name, level="state")
    assert played.status == 0, played.output
    assert fleet.on("lab2", f"cat {folder}/mine").strip() == "before"
    assert fleet.on("lab2", f"cat {folder}.before-*/mine && rm -r {folder}.before-*").strip() == "after"
    fleet.wait_well()


def _tar(fleet: Fleet, host: str, words: list[str], **options: Any) -> None:
    inside = ["nsenter", "--target", str(fleet.lab.machines()[host].leader()), "--all", "--"]
    subprocess.run([*inside, "tar", "-C", BACKUPS, *words], check=True, **options)


def test_a_whole_fleet_comes_back_from_backups_on_empty_hosts(fleet: Fleet, tmp_path: Path) -> None:
    """As docs/backups.md says it: the backups' folders and the controller's secrets are all that is left."""
    fleet.wait_well()
    hosts = sorted(fleet.lab.machines())
    here = {host: len(instances(fleet, host)) for host in hosts}

    def save(host: str) -> None:
        fleet.on(host, MARK)
        backed_up(fleet, host)
        with open(tmp_path / host, "wb") as file:
            _tar(fleet, host, ["-c", "."], stdout=file)

    def put_back(host: str) -> None:
        with open(tmp_path / host, "rb") as file:
            _tar(fleet, host, ["-x"], stdin=file)
        fleet.on(host, PUT_BACK)

    def each(act: Callable[[str], None]) -> None:
        with ThreadPoolExecutor() as threads:
            list(threads.map(act, hosts))

    each(save)
    for host in hosts:
        fleet.lab.rebuild(host)
    began = time.monotonic()
    installed = fleet.play("site.yml", "--tags", "consul,outrider,install")  # all but the agents themselves
    assert installed.status == 0, installed.output
    bare = time.monotonic()
    each(put_back)
    fleet.on("lab1", "outrider backup restore fleet --level kv --apply")
    restored = time.monotonic()
    fleet.wait_well(180)
    done = time.monotonic()
    assert {host: int(fleet.on(host, MARKED)) for host in hosts} == here
    print(
        f"a whole fleet on empty hosts: {done - began:.0f} s to 77 passing: Consul, shims, code {bare - began:.0f} s, "
        f"backups put back {restored - bare:.0f} s, agents started {done - restored:.0f} s"
    )
