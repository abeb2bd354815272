"""What the role `outrider` renders is what the shim reads, whatever is in a name or a label."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
from msgspec.structs import replace

from outrider.host.config import Config, ConsulConfig, load_config

TEMPLATES = Path(__file__).parents[3] / "roles" / "outrider" / "templates"


def render(tmp_path: Path, labels: dict[str, object], secure: bool = False) -> Config:
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
            outrider_free_ports=True,
            outrider_local_ports=secure,
            outrider_releases_folder="/opt/outrider/releases",
            outrider_backup_folder="/srv/backups",
            outrider_http_host="127.0.0.1",
            outrider_starts=8,
            outrider_placer=not secure,
            outrider_needs_wait_s=15,
            outrider_labels=labels,
            outrider_consul_host="127.0.0.1",
            outrider_consul_servers=["https://10.0.0.2:8501"],
            outrider_secure=secure,
            outrider_calls_tls=secure,
            outrider_peers=secure,
            outrider_peers_port=9333,
            __outrider_peers_key="/etc/outrider/peers.key",
            __outrider_calls_tls_folder="/etc/outrider/calls",
            __outrider_path={
                "runtime": '/home/me/a "quoted" folder/run',
                "state": "/home/me/state",
                "log": "/home/me/log",
                "agents": "systemd" if secure else "process",
            },
            __outrider_tls_folder="/etc/outrider/tls",
            __outrider_http_port=19321,
            __outrider_consul_port=18500,
        )
    )
    return load_config(file)


def test_the_shim_reads_what_the_role_writes(tmp_path: Path) -> None:
    config = render(tmp_path, {"rack": "a1", "nvme.fast": True})
    assert (config.fleet, config.host, config.address) == ("reference", "gpu 1", "10.0.0.1")
    assert config.socket == Path('/home/me/a "quoted" folder/run/outriderd.sock')
    assert config.free_ports
    assert config.labels == {"rack": "a1", "nvme.fast": "True"}
    assert config.placer
    assert config.consul == ConsulConfig(port=18500)
    assert config.peers_key_file is None


def test_no_labels_are_no_labels(tmp_path: Path) -> None:
    assert render(tmp_path, {}).labels == {}


def test_a_secured_shim_has_a_token_and_a_certificate(tmp_path: Path) -> None:
    config = render(tmp_path, {}, secure=True)
    assert (config.supervisor, config.consul.token_file) == ("systemd", "/etc/outrider/consul.token")
    # The own Consul agent is asked over loopback, in the clear; a server has its certificate looked at.
    consul = replace(config.consul, token_file="")
    assert consul.address().scheme == "http"
    assert [str(server) for server in consul.server_addresses()] == ["https://10.0.0.2:8501"]
    assert consul.server_addresses()[0].ca_file == "/etc/outrider/tls/ca.pem"
    assert config.http_tls is not None
    assert not config.placer
    assert config.http_tls.cert_file == Path("/etc/outrider/tls/host.pem")
    assert config.calls_tls == Path("/etc/outrider/calls")
    assert config.backups == Path("/srv/backups")
    assert (config.peers_key_file, config.peers_port) == (Path("/etc/outrider/peers.key"), 9333)
