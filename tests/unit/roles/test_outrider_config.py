"""What the role `outrider` renders is what the shim reads, whatever is in a name or a label."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from outrider.host.config import Config, ConsulConfig, load_config

TEMPLATES = Path(__file__).parents[3] / "roles" / "outrider" / "templates"


def render(tmp_path: Path, labels: dict[str, object]) -> Config:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined)
    environment.filters |= {"to_json": json.dumps, "bool": bool}
    file = tmp_path / "outriderd.toml"
    template = environment.get_template("outriderd.toml.j2")
    file.write_text(
        template.render(
            ansible_managed="managed",
            outrider_fleet="reference",
            outrider_host="gpu 1",
            outrider_address="10.0.0.1",
            outrider_folder='/home/me/a "quoted" folder',
            outrider_free_ports=True,
            outrider_http_host="127.0.0.1",
            outrider_starts=8,
            outrider_needs_wait_s=15,
            outrider_labels=labels,
            outrider_consul_host="127.0.0.1",
            __outrider_chosen={"ports": {"outrider_http": 19321, "consul_http": 18500}},
        )
    )
    return load_config(file)


def test_the_shim_reads_what_the_role_writes(tmp_path: Path) -> None:
    config = render(tmp_path, {"rack": "a1", "nvme.fast": True})
    assert (config.fleet, config.host, config.address) == ("reference", "gpu 1", "10.0.0.1")
    assert config.socket == Path('/home/me/a "quoted" folder/run/outriderd.sock')
    assert config.free_ports
    assert config.labels == {"rack": "a1", "nvme.fast": "True"}
    assert config.consul == ConsulConfig(port=18500)


def test_no_labels_are_no_labels(tmp_path: Path) -> None:
    assert render(tmp_path, {}).labels == {}
