"""The resolvers that can ask Consul for names under .consul and nothing else, and when they are left alone."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.name_resolution import nameservers

Command = Callable[[list[str]], "tuple[int, str, str]"]
SEARCHED = ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LINK = "consul-dns"
UNIT_FILE = "/etc/systemd/system/consul-dns.service"
DNSMASQ_FILE = "/etc/dnsmasq.d/10-consul.conf"
STUBS = ("/run/systemd/resolve/stub-resolv.conf", "/usr/lib/systemd/resolv.conf", "/lib/systemd/resolv.conf")
STUB = "127.0.0.53"
# The first that lets a server have a port.
SYSTEMD = 246
# RFC 7600 sets it aside for interfaces that need an address and have none: nobody routes it.
NO_ADDRESS = "192.0.0.8/32"

# A link, because the routes of resolved's global servers cannot be narrowed: they are asked for every name that is not
# in a link's own domains. With Consul among them and frozen, a name that does not exist took 130 s to fail.
UNIT = """\
# Managed by Ansible.
[Unit]
Description=Names under .consul are asked of the Consul agent
Wants=systemd-resolved.service
After=systemd-resolved.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=15
ExecStartPre=-{ip} link delete {link}
ExecStart={ip} link add {link} type veth peer name {link}-end
ExecStart={ip} link set {link}-end addrgenmode none up
ExecStart={ip} link set {link} addrgenmode none up
ExecStart={ip} address add {address} dev {link}
ExecStart={resolvectl} llmnr {link} no
ExecStart={resolvectl} mdns {link} no
ExecStart={resolvectl} dnssec {link} no
ExecStart={resolvectl} dnsovertls {link} no
ExecStart={resolvectl} default-route {link} no
ExecStart={resolvectl} domain {link} ~consul
ExecStart={resolvectl} dns {link} {server}
ExecStopPost=-{ip} link delete {link}

[Install]
WantedBy=multi-user.target
"""


class Refused(Exception):
    """Why the resolver is left alone."""


@dataclass(frozen=True)
class Forwarding:
    """What both resolvers have: the file that holds the setting, and Consul's DNS address."""

    run: Command
    server: str
    port: int

    def systemctl(self, *words: str) -> None:
        """Raises Refused with what systemd said."""
        code, _, error = self.run(["systemctl", *words])
        if code:
            raise Refused(f"systemctl {' '.join(words)}: {error.strip()}")

    def says(self, *words: str) -> bool:
        """Whether a question to systemctl, such as is-active, is answered with yes."""
        return self.run(["systemctl", "--quiet", *words])[0] == 0


class Resolved(Forwarding):
    """systemd-resolved: a link of its own that carries nothing but the name of Consul's server."""

    file = UNIT_FILE
    validate: tuple[str, ...] = ()

    def content(self) -> str:
        """The unit that makes the link."""
        server = f"[{self.server}]" if ":" in self.server else self.server
        words = {"link": LINK, "address": NO_ADDRESS, "server": f"{server}:{self.port}"}
        return UNIT.format(ip=_program("ip"), resolvectl=_program("resolvectl"), **words)

    def require(self) -> None:
        """Raises Refused when it would take effect badly, or not at all."""
        if not self.says("is-active", "systemd-resolved"):
            raise Refused("systemd-resolved is not active")
        version = re.match(r"systemd (\d+)", self.run(["systemctl", "--version"])[1])
        if not version or int(version[1]) < SYSTEMD:
            raise Refused(f"systemd {version[1] if version else '?'} cannot give a DNS server a port; {SYSTEMD} can")
        if (target := os.path.realpath("/etc/resolv.conf")) not in STUBS:
            raise Refused(f"/etc/resolv.conf is {target}, so programs do not ask systemd-resolved; {STUBS[0]} would do")
        if not ipaddress.ip_address(self.server).is_loopback:
            raise Refused(f"Consul's DNS at {self.server} is not on loopback: it would be looked for behind the link")
        _program("ip")
        self._require_own_servers()

    def _require_own_servers(self) -> None:
        own = _index(LINK)
        domains = [row for row in self._property("Domains") if row[0] != own and row[1].strip(".") == "consul"]
        if domains:
            raise Refused("systemd-resolved has another server for the domain consul already; see `resolvectl domain`")
        # A loopback server shows lo's index whatever link it is of.
        ours = [2, [127, 0, 0, 1], self.port]
        servers = [row for row in self._property("DNSEx") if list(row[1:4]) != ours]
        if not servers and self._property("FallbackDNSEx"):
            raise Refused("no link has a DNS server, so systemd-resolved asks its FallbackDNS; it would not any more")

    def _property(self, name: str) -> Any:
        place = ["org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager"]
        code, output, error = self.run(["busctl", "--json=short", "get-property", *place, name])
        if code:
            raise Refused(f"systemd-resolved does not tell {name}: {error.strip()}")
        return json.loads(output)["data"]

    def is_applied(self) -> bool:
        """Whether the link is there, now and after a reboot."""
        return self.says("is-active", f"{LINK}.service") and self.says("is-enabled", f"{LINK}.service")

    def apply(self) -> None:
        """With the file in place."""
        self.systemctl("daemon-reload")
        self.systemctl("enable", f"{LINK}.service")
        self.systemctl("restart", f"{LINK}.service")

    def withdraw(self) -> None:
        """Before the file goes."""
        self.systemctl("disable", "--now", f"{LINK}.service")

    def withdrawn(self) -> None:
        """Once it is gone."""
        self.systemctl("daemon-reload")

    def asked(self) -> list[str]:
        """The addresses at which programs ask it."""
        return [STUB]


class Dnsmasq(Forwarding):
    """dnsmasq: a server for one domain."""

    file = DNSMASQ_FILE
    validate = ("dnsmasq", "--test", "--conf-file=%s")

    def content(self) -> str:
        """Consul's addresses are mostly private ones, which dnsmasq may be told to keep from answers."""
        lines = f"server=/consul/{self.server}#{self.port}\nrebind-domain-ok=/consul/\n"
        return f"# Managed by Ansible.\n{lines}"

    def require(self) -> None:
        """Raises Refused when it would take effect badly, or not at all."""
        if not self.says("is-active", "dnsmasq"):
            raise Refused("dnsmasq is not active")
        if not os.path.isdir(os.path.dirname(self.file)):
            raise Refused(f"there is no folder {os.path.dirname(self.file)}")
        if not nameservers():
            raise Refused("/etc/resolv.conf names no server, so programs do not ask dnsmasq")

    def is_applied(self) -> bool:
        """dnsmasq reads the file as it starts; whether it did is seen by how it answers."""
        return self.says("is-active", "dnsmasq")

    def apply(self) -> None:
        """With the file in place."""
        self.systemctl("restart", "dnsmasq")

    def withdraw(self) -> None:
        """Before the file goes."""

    def withdrawn(self) -> None:
        """Once it is gone."""
        if self.says("is-active", "dnsmasq") or self.says("is-failed", "dnsmasq"):
            self.systemctl("restart", "dnsmasq")

    def asked(self) -> list[str]:
        """The addresses at which programs ask it."""
        first: list[str] = nameservers()[:1]
        return first


RESOLVERS = {"resolved": Resolved, "dnsmasq": Dnsmasq}


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", "") + SEARCHED)
    if not path:
        raise Refused(f"there is no program {name}")
    return path


def _index(link: str) -> int:
    try:
        with open(f"/sys/class/net/{link}/ifindex") as file:
            return int(file.read())
    except OSError:
        return -1
