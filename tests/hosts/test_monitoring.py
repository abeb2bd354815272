"""Prometheus finds the fleet by itself, and shows itself to nobody else."""

from __future__ import annotations

import json
from typing import Any

from hosts.fleet import Fleet, until


def targets(fleet: Fleet) -> list[dict[str, Any]]:
    answer = json.loads(fleet.on("lab4", "curl -s http://127.0.0.1:9090/api/v1/targets"))
    return list(answer["data"]["activeTargets"])


def what(fleet: Fleet) -> set[tuple[str, str]]:
    """Job and host of each target that is scraped well."""
    return {(row["labels"]["job"], row["labels"]["host"]) for row in targets(fleet) if row["health"] == "up"}


def test_everything_is_scraped_with_its_host_and_fleet(fleet: Fleet) -> None:
    hosts = set(fleet.lab.machines())
    wanted = {(job, host) for job in ("outrider", "node") for host in hosts}
    wanted |= {("consul", host) for host in ("lab1", "lab2", "lab3")} | {("prometheus", "lab4")}
    until(
        lambda: what(fleet) == wanted, 60, lambda: json.dumps([(t["labels"], t["lastError"]) for t in targets(fleet)])
    )
    assert {row["labels"]["fleet"] for row in targets(fleet)} == {"reference"}


def test_the_fleet_can_be_asked_about(fleet: Fleet) -> None:
    fleet.wait_well()
    ask = "curl -s 'http://127.0.0.1:9090/api/v1/query?query=sum(outrider_instance_up)'"

    def up() -> bool:
        found = json.loads(fleet.on("lab4", ask))["data"]["result"]
        return bool(found) and found[0]["value"][1] == "77"

    until(up, 30, lambda: fleet.on("lab4", ask))
    address = fleet.lab.machines()["lab4"].address
    assert fleet.on("lab4", f"curl -s -o /dev/null -w '%{{http_code}}' http://{address}:9090/; true") == "000"
