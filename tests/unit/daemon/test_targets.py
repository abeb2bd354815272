"""How a shim is found by Prometheus: what is registered, and what is made of Consul's answer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from outrider.daemon.targets import groups_of, peers_of, shim_service
from outrider.errors import ConsulError
from outrider.host.config import Config, HttpTls
from outrider.registry.client import Reply
from outrider.registry.layout import TAG

TLS = HttpTls(Path("/ca"), Path("/cert"), Path("/key"))


def config(**changes: object) -> Config:
    return Config("fleet", "gpu1", Path("/r"), Path("/s"), Path("/l"), address="10.0.0.1", **changes)


def reply(*registered: dict[str, object]) -> Reply:
    return Reply(1, msgspec.json.encode(registered), True, 0, 200)


def node(host: str, address: str, **more: str) -> dict[str, object]:
    meta = {"fleet": "fleet", "host": host, "scheme": "https", **more}
    return {"Node": host, "ServiceAddress": address, "ServicePort": 9321, "ServiceMeta": meta, "ServiceTags": None}


def test_a_shim_registers_what_others_can_connect_to() -> None:
    loopback = shim_service(config())
    assert (loopback.address, loopback.port, loopback.meta["scheme"]) == ("127.0.0.1", 9321, "http")
    everywhere = shim_service(config(http_host="0.0.0.0", http_tls=TLS))
    assert (everywhere.address, everywhere.meta["scheme"]) == ("10.0.0.1", "https")
    assert shim_service(config(http_host="gpu1.lan", http_tls=TLS)).address == "gpu1.lan"


def test_a_shim_tells_what_its_host_is_like() -> None:
    assert shim_service(config()).meta.keys() >= {"kernel", "python"}


def test_nobody_takes_a_shim_for_an_instance() -> None:
    assert TAG not in shim_service(config()).tags


def test_each_shim_of_the_fleet_is_one_group_with_its_labels() -> None:
    groups = groups_of(
        reply(node("gpu2", "10.0.0.2"), node("gpu1", "fd00::1"), node("alien", "10.0.0.9", fleet="other")), "fleet"
    )
    assert msgspec.to_builtins(groups) == [
        {"targets": ("[fd00::1]:9321",), "labels": {"fleet": "fleet", "host": "gpu1", "__scheme__": "https"}},
        {"targets": ("10.0.0.2:9321",), "labels": {"fleet": "fleet", "host": "gpu2", "__scheme__": "https"}},
    ]


def test_no_shims_and_nonsense() -> None:
    assert groups_of(Reply(1, b"", True, 0, 404), "fleet") == []
    with pytest.raises(ConsulError):
        groups_of(Reply(1, b"<html>", True, 0, 200), "fleet")


def test_only_shims_with_a_key_are_each_others_peers() -> None:
    assert "peers_port" not in shim_service(config()).meta
    meta = shim_service(config(http_host="127.0.0.1", peers_key_file=Path("/key"))).meta
    assert (meta["peers_address"], meta["peers_port"]) == ("10.0.0.1", "9322")
    found = reply(
        {"ServiceAddress": "127.0.0.1", "ServiceMeta": meta},
        node("gpu2", "10.0.0.2"),
        node("alien", "10.0.0.9", fleet="other", peers_address="10.0.0.9", peers_port="9322"),
    )
    assert peers_of(found, "fleet") == {"gpu1": "10.0.0.1"}
