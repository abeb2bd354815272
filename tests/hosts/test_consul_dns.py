"""Modules consul_dns and consul_anonymous on a host with a real Consul, systemd-resolved, dnsmasq and a site's DNS."""

from __future__ import annotations

import json
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible
import pytest

from hosts.fleet import until
from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

pytestmark = pytest.mark.root

ROLE = CHECKOUT / "roles" / "consul"
MANAGEMENT = "6a1fa0f1-6a6c-4d6e-9d3a-0f5f0c2f9b11"
CONSUL = {
    "server": True,
    "bootstrap_expect": 1,
    "bind_addr": "127.0.0.1",
    "data_dir": "/var/lib/test-consul",
    "performance": {"raft_multiplier": 1},
    "acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": MANAGEMENT, "agent": MANAGEMENT}},
}
READ = 'node_prefix "" { policy = "read" }\nservice_prefix "" { policy = "read" }\n'
SITE_DNS = (
    "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --listen-address={0}"
    " --local=/#/ --address=/app.site.test/192.0.2.10 --address=/intern.consul/192.0.2.11"
)
# As Debian's package runs it; {0} is the folder of its settings.
DNSMASQ = "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --bind-interfaces --listen-address=127.0.0.1"
DNSMASQ += " --no-resolv --server={0} --conf-dir={1}"
NAMES = {"check_names": ["app.site.test"]}
LINK_FILE, DNSMASQ_FILE = "/etc/systemd/system/consul-dns.service", "/etc/dnsmasq.d/10-consul.conf"


class Host:
    """lab2, whose DNS server lab1 is."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.site = lab, lab.machines()["lab1"].address

    def sh(self, command: str, name: str = "lab2") -> str:
        return self.lab.machines()[name].run("sh", "-c", command)

    def unit(self, name: str, command: str, host: str = "lab2") -> None:
        text = f"[Service]\nExecStart={command}\n[Install]\nWantedBy=multi-user.target\n"
        self.sh(f"printf '{text}' >/etc/systemd/system/{name}.service", host)
        self.sh(f"systemctl daemon-reload; systemctl enable --quiet {name}; systemctl restart {name}", host)

    def address(self, name: str) -> str:
        """What a program gets for a name; empty if it gets none within 10 s."""
        words = self.sh(f"timeout 10 getent ahosts {name} || true").split()
        return words[0] if words else ""

    def module(self, name: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run a module as Ansible would, but without the seconds that its controller takes; what it returned."""
        given = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}}
        self.sh(f"printf '%s' {shlex.quote(json.dumps(given))} >/root/arguments.json")
        output = self.sh(f"PYTHONPATH=/opt/modules python3 /opt/modules/{name}.py /root/arguments.json || true")
        return json.loads(output)  # type: ignore[no-any-return]

    def send_modules(self) -> None:
        """What Ansible would pack for them: its own part and the role's."""
        scratch = self.lab.folder / "modules.tar"
        own = Path(ansible.__file__).parent
        with tarfile.open(scratch, "w") as tar:
            for part in ("__init__.py", "release.py", "_vendor", "module_utils"):
                tar.add(own / part, f"ansible/{part}")
            tar.add(ROLE / "module_utils", "ansible/module_utils")
            tar.add(ROLE / "library", ".")
        with open(scratch, "rb") as stream:
            unpack = self.lab.ssh_command("lab2", "sudo", "sh", "-c", "'mkdir -p /opt/modules; tar -xC /opt/modules'")
            subprocess.run(unpack, stdin=stream, check=True)

    def forward(self, resolver: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        return self.module("consul_dns", check, resolver=resolver, **{**NAMES, **arguments})

    def anonymous(self, state: str, name: str = "outrider-dns") -> dict[str, Any]:
        access = {"servers": ["http://127.0.0.1:8500"], "management_token": MANAGEMENT}
        return self.module("consul_anonymous", **access, state=state, policy={"name": name, "rules": READ})

    def settings(self) -> str:
        """All that a change could leave behind."""
        paths = "/etc/systemd/system /etc/systemd/resolved.conf* /etc/dnsmasq.d /etc/resolv.conf"
        return self.sh(f"find {paths} | sort; ip -brief link | cut -d' ' -f1; cat /run/systemd/resolve/resolv.conf")

    def consul_pid(self) -> str:
        return self.sh("systemctl show test-consul --property=MainPID --value").strip()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Two hosts: one is the site's DNS, the other uses it and has a Consul that denies by default."""
    del tmp_path_factory  # its paths are too long for ssh's sockets
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        lab = Lab(Path(folder) / "lab")
        try:
            lab.up(2)
            yield prepared(Host(lab))
        finally:
            lab.down()


def prepared(host: Host) -> Host:
    install = "apt-get install -qq --no-install-recommends dnsmasq-base"
    host.sh(install, "lab1")
    host.unit("site-dns", SITE_DNS.format(host.site), "lab1")
    host.sh(f"{install} && mkdir /etc/dnsmasq.d && dpkg-deb --extract /srv/packages/consul_*.deb /opt/consul")
    host.sh(f"printf '%s' '{json.dumps(CONSUL)}' >/etc/test-consul.json")
    host.unit("test-consul", "/opt/consul/usr/bin/consul agent -config-file=/etc/test-consul.json")
    host.sh("mkdir /etc/systemd/network/10-lab.network.d")
    host.sh(f"printf '[Network]\\nDNS={host.site}\\n' >/etc/systemd/network/10-lab.network.d/dns.conf")
    host.sh("networkctl reload && networkctl reconfigure host0")
    until(lambda: host.address("app.site.test") == "192.0.2.10", 20)
    host.send_modules()
    host.anonymous("present")
    return host


@pytest.fixture
def dnsmasq(host: Host) -> Iterator[Host]:
    """The host asks dnsmasq on loopback, which asks the site."""
    host.unit("dnsmasq", DNSMASQ.format(host.site, "/etc/dnsmasq.d"))
    link = host.sh("readlink /etc/resolv.conf").strip()
    host.sh("rm /etc/resolv.conf; echo nameserver 127.0.0.1 >/etc/resolv.conf; systemctl stop systemd-resolved")
    yield host
    host.sh("systemctl disable --quiet --now dnsmasq; rm -f /etc/systemd/system/dnsmasq.service")
    host.sh(f"systemctl daemon-reload; systemctl start systemd-resolved; ln -sf {link} /etc/resolv.conf")


def test_forwards_by_resolved_once_and_removes_it(host: Host) -> None:
    before = host.settings()
    predicted = host.forward("resolved", check=True)
    assert predicted["changed"]
    assert "domain consul-dns ~consul" in predicted["diff"][0]["after"]
    assert host.settings() == before
    done = host.forward("resolved")
    assert (done.get("changed"), done["consul_says"]) == (True, "NOERROR"), done
    assert host.address("consul.service.consul") == "127.0.0.1"
    assert host.address("app.site.test") == "192.0.2.10"
    assert not host.forward("resolved")["changed"]
    assert host.module("consul_dns", check=True, state="absent")["changed"]
    assert host.address("consul.service.consul") == "127.0.0.1"
    assert host.module("consul_dns", state="absent")["changed"]
    assert not host.module("consul_dns", state="absent")["changed"]
    assert host.settings() == before


def test_a_frozen_consul_delays_no_other_name_and_a_reboot_changes_nothing(host: Host) -> None:
    host.forward("resolved")
    host.sh(f"kill -STOP {host.consul_pid()}; resolvectl flush-caches")
    began = time.monotonic()
    assert (host.address("missing.example"), host.address("app.site.test")) == ("", "192.0.2.10")
    assert time.monotonic() - began < 4  # systemd-resolved gives a server that is silent 5 s and more
    host.sh(f"kill -CONT {host.consul_pid()}")
    host.lab.reboot("lab2")
    until(lambda: host.address("consul.service.consul") == "127.0.0.1", 20)
    assert not host.forward("resolved")["changed"]
    host.module("consul_dns", state="absent")


def test_a_name_that_would_be_lost_is_named_and_the_change_taken_back(host: Host) -> None:
    """The site's DNS knows a name under .consul that Consul does not."""
    before = host.settings()
    done = host.forward("resolved", check_names=["intern.consul"], settle_s=1)
    assert "intern.consul does not resolve (it was 192.0.2.11)" in done["msg"]
    assert done["msg"].endswith("This was taken back, and the resolver is as it was")
    assert host.settings() == before
    assert host.address("intern.consul") == "192.0.2.11"


REFUSED = {
    "systemd-resolved is not active": ("systemctl stop systemd-resolved", "systemctl start systemd-resolved"),
    "programs do not ask systemd-resolved": (
        "mv /etc/resolv.conf /etc/resolv.link; echo nameserver 192.0.2.1 >/etc/resolv.conf",
        "mv /etc/resolv.link /etc/resolv.conf",
    ),
    "another server for the domain consul": ("resolvectl domain host0 ~consul", "resolvectl revert host0"),
    "asks its FallbackDNS": (
        "mkdir /etc/systemd/resolved.conf.d; printf '[Resolve]\nFallbackDNS=192.0.2.1\n'"
        " >/etc/systemd/resolved.conf.d/f.conf; systemctl restart systemd-resolved; resolvectl dns host0 ''",
        "rm -r /etc/systemd/resolved.conf.d; systemctl restart systemd-resolved; resolvectl revert host0",
    ),
    "does not answer consul.service.consul: no answer in 2 s": (
        "kill -STOP $(systemctl show test-consul --property=MainPID --value)",
        "kill -CONT $(systemctl show test-consul --property=MainPID --value)",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_is_refused_where_it_would_take_effect_badly(host: Host, reason: str) -> None:
    spoil, mend = REFUSED[reason]
    host.sh(spoil)
    try:
        before = host.settings()
        done = host.forward("resolved")
        assert reason in done.get("msg", ""), done
        assert host.settings() == before
    finally:
        host.sh(mend)


def test_forwards_by_dnsmasq_once_and_removes_it(dnsmasq: Host) -> None:
    before = dnsmasq.settings()
    assert dnsmasq.forward("dnsmasq")["changed"]
    assert dnsmasq.address("consul.service.consul") == "127.0.0.1"
    assert dnsmasq.address("app.site.test") == "192.0.2.10"
    assert not dnsmasq.forward("dnsmasq")["changed"]
    assert "remove that with state absent first" in dnsmasq.forward("resolved")["msg"]
    assert dnsmasq.module("consul_dns", state="absent")["changed"]
    assert dnsmasq.settings() == before


def test_a_dnsmasq_that_does_not_read_the_folder_is_left_as_it_was(dnsmasq: Host) -> None:
    dnsmasq.unit("dnsmasq", DNSMASQ.format(dnsmasq.site, "/opt"))
    before = dnsmasq.settings()
    done = dnsmasq.forward("dnsmasq", settle_s=1)
    assert "127.0.0.1 does not ask Consul for consul: NXDOMAIN" in done["msg"]
    assert done["msg"].endswith("and the resolver is as it was")
    assert dnsmasq.settings() == before


def test_dnsmasq_that_does_not_run_is_refused(host: Host) -> None:
    assert "dnsmasq is not active" in host.forward("dnsmasq")["msg"]


def test_names_that_acls_hide_are_no_failure(host: Host) -> None:
    """And the policy comes and goes among others of the anonymous token."""
    assert host.anonymous("present", "other")["steps"] == ["create policy", "link policy"]
    assert host.anonymous("absent")["steps"] == ["unlink policy", "delete policy"]
    assert not host.anonymous("absent")["changed"]
    assert not host.anonymous("present", "other")["changed"]
    host.anonymous("absent", "other")
    host.sh("systemctl restart test-consul")
    until(lambda: host.forward("resolved").get("consul_says") == "NXDOMAIN", 20)
    assert host.address("consul.service.consul") == ""
    assert not host.forward("resolved")["changed"]
    assert host.anonymous("present")["changed"]
    # An agent remembers a token's rights for 30 s.
    host.sh("systemctl restart test-consul")
    until(lambda: host.address("consul.service.consul") == "127.0.0.1", 20)
