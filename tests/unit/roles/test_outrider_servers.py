"""Which of Consul's servers a host's shim asks, by the default of the role `outrider`: the same in every run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

DEFAULTS = Path(__file__).parents[3] / "roles/outrider/defaults/main.yml"
INVENTORY = {
    "all": {
        "vars": {"outrider_secure": True, "ansible_connection": "local"},
        "children": {
            "consul_servers": {"hosts": {f"server{n}": {"ansible_host": f"10.0.0.{n}"} for n in range(1, 6)}},
            "agent_hosts": {"hosts": {"server1": {}, "gpu": {"ansible_host": "10.0.1.1"}}},
        },
    }
}


def servers(tmp_path: Path, host: str, seed: str) -> list[str]:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump(INVENTORY))
    variables = tmp_path / "variables.yml"
    variables.write_text(yaml.safe_dump({"asked": yaml.safe_load(DEFAULTS.read_text())["outrider_consul_servers"]}))
    ad_hoc = (sys.executable, "-m", "ansible", "adhoc", "-i", inventory, host, "-e", f"@{variables}")
    said = subprocess.run(
        [*ad_hoc, "-m", "debug", "-a", "var=asked"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": seed, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"},
    ).stdout
    return list(json.loads(said.split("=>", 1)[1])["asked"])


def test_every_other_server_in_an_order_of_the_hosts_own_that_stays(tmp_path: Path) -> None:
    everywhere = [f"https://10.0.0.{n}:8501" for n in range(1, 6)]
    asked = servers(tmp_path, "gpu", "1")
    assert sorted(asked) == everywhere
    assert servers(tmp_path, "gpu", "2") == asked
    assert sorted(servers(tmp_path, "server1", "1")) == everywhere[1:]
