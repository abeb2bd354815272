"""Hosts come from what Ansible says of an inventory, and what it cannot say is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider.errors import FleetError
from outrider.fleet.hosts import hosts_of, members, read_inventory
from outrider.fleet.inventory import open_inventory
from outrider.fleet.spec import Host

INVENTORY = {
    "_meta": {
        "hostvars": {
            "b": {"ansible_host": "10.0.0.2", "outrider_cpu": "8", "outrider_memory_mib": "{{ ansible_memtotal_mb }}"},
            "a": {"ansible_host": "10.0.0.1", "outrider_address": "a.lan", "outrider_gpus_mib": [100, "200"],
                  "outrider_labels": {"ssd": True}},
        }
    },
    "all": {"children": ["ungrouped", "agent_hosts", "consul_servers"]},
    "agent_hosts": {"children": ["rack"]},
    "rack": {"hosts": ["b", "a"]},
    "consul_servers": {"hosts": ["a", "witness"]},
}  # fmt: skip


def test_agent_hosts_are_read_with_their_groups_and_quantities() -> None:
    assert hosts_of(INVENTORY) == (
        Host("a", "a.lan", ("agent_hosts", "rack", "consul_servers"), {"ssd": "True"}, gpus_mib=(100, 200)),
        Host("b", "10.0.0.2", ("agent_hosts", "rack"), cpu=8.0),
    )
    assert members(INVENTORY, "all") == {"a", "b", "witness"}


def test_without_the_group_all_hosts_run_agents() -> None:
    assert [host.name for host in hosts_of({"all": {"hosts": ["y", "x"]}})] == ["x", "y"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"outrider_cpu": "many"}, "host a: outrider_cpu: found 'many', allowed: a number of cores"),
        ({"outrider_gpus_mib": 24}, "host a: outrider_gpus_mib: found 24, allowed: a list of whole numbers"),
        ({"outrider_gpus_mib": ["x"]}, "host a: outrider_gpus_mib: found ['x']"),
        ({"outrider_labels": ["gpu"]}, "host a: outrider_labels: found ['gpu'], allowed: a mapping"),
    ],
)
def test_a_variable_that_is_no_quantity_is_named(variables: dict[str, object], says: str) -> None:
    with pytest.raises(FleetError) as caught:
        hosts_of({"all": {"hosts": ["a"]}, "_meta": {"hostvars": {"a": variables}}})
    assert caught.value.problems[0].startswith(says)


def test_an_inventory_that_ansible_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="no such inventory"):
        read_inventory(tmp_path / "gone")
    broken = tmp_path / "hosts.yml"
    broken.write_text("all: {hosts: [\n")
    with pytest.raises(FleetError, match=r"no hosts: .*Failed to parse"):
        read_inventory(broken)


def test_the_fleet_file_is_the_one_that_the_inventory_names(tmp_path: Path) -> None:
    folder = tmp_path / "inventories" / "one"
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text(
        'all: {hosts: {a: {fleet_file: "{{ inventory_dir | dirname }}/two/fleet.yml"}}}\n'
    )
    opened = open_inventory(folder, None)
    assert opened.fleet_file == tmp_path / "inventories/two/fleet.yml"
    assert [host.name for host in opened.hosts or ()] == ["a"]
    assert "0 Consul servers" in opened.warnings[0]


def test_without_anything_to_go_by_it_says_what_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventories/lab").mkdir(parents=True)
    (tmp_path / "inventories/lab/hosts.yml").write_text("all:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FleetError) as caught:
        open_inventory(None, None)
    assert "there is no fleet.yml here" in caught.value.problems[0]
    assert caught.value.hint == "name a fleet file or an inventory folder: inventories/lab"
    (tmp_path / "fleet.yml").write_text("x")
    opened = open_inventory(None, None)
    assert (opened.fleet_file, opened.hosts) == (Path("fleet.yml"), None)
    assert "was not checked" in opened.warnings[0]
