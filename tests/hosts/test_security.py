"""What a host, an agent and a stranger may not do on a running lab."""

from __future__ import annotations

import base64
import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hosts.fleet import Fleet, Played

CA = "--cacert /etc/outrider/tls/ca.pem"
MINE = f"{CA} --cert /etc/outrider/tls/host.pem --key /etc/outrider/tls/host-key.pem"

# Port to what listens there, and where. The agents' own ports are those that the fleet file declares.
LOOPBACK = {8500: "consul", 8600: "consul", 53: "systemd-resolve", 9090: "prometheus"}
ANY = {22: "sshd", 5355: "systemd-resolve"}
HOST = {8300: "consul", 8301: "consul", 8501: "consul", 9321: "outriderd", 9322: "outriderd", 9105: "prometheus-node"}


# A stranger at the servers' RPC: without TLS it is closed, with TLS it is asked for a certificate.
STRANGER = """
import socket, ssl, sys
with socket.create_connection((sys.argv[1], 8300), timeout=5) as plain:
    plain.sendall(b"\\x00" + b"\\x82\\xa3Seq\\x00")
    print("closed" if plain.recv(10) == b"" else "answered")
context = ssl._create_unverified_context()
with socket.create_connection((sys.argv[1], 8300), timeout=5) as plain:
    plain.sendall(b"\\x03")
    try:
        with context.wrap_socket(plain) as line:
            line.sendall(b"\\x00")
            print("answered" if line.recv(10) else "closed")
    except ssl.SSLError as error:
        print("certificate" if "certificate" in str(error).lower() else error)
"""


def token_of(fleet: Fleet, host: str) -> str:
    return str(fleet.tokens()["hosts"][host]["secret"])


def here(fleet: Fleet, host: str) -> str:
    """An agent that may run on this host and on no other."""
    return next(row["agent"] for row in fleet.status()["instances"] if row["host"] == host)


def elsewhere(fleet: Fleet) -> str:
    """An agent that may run on lab3 or lab4, and not on lab1."""
    agents = {row["agent"] for row in fleet.status()["instances"] if row["host"] in ("lab3", "lab4")}
    return sorted(agents - {"ObservabilityHub"})[0]


def refused(answer: tuple[int, Any]) -> bool:
    status, said = answer
    # The keyring's refusal is a 500 up to Consul 1.10.
    return (
        status == 403
        or (status == 500 and "denied by ACLs" in str(said))
        or (status == 404 and not said)
        or (status == 200 and said in (False, [], "false"))
    )


def test_a_host_may_change_its_own_and_no_other(fleet: Fleet) -> None:
    mine = token_of(fleet, "lab1")

    def ask(path: str, data: Any = None, method: str = "PUT") -> tuple[int, Any]:
        return fleet.consul("lab1", path, token=mine, method=method, data=data)  # type: ignore[no-any-return]

    node = {"Node": "lab3", "Address": fleet.lab.machines()["lab3"].address}
    name = elsewhere(fleet)
    assert refused(ask("catalog/register", node | {"Service": {"Service": name}}))
    assert refused(
        ask("catalog/register", node | {"Check": {"Name": "x", "CheckID": "serfHealth", "Status": "critical"}})
    )
    assert refused(ask("catalog/deregister", {"Node": "lab3"}))
    assert refused(ask("catalog/deregister", {"Node": "lab3", "ServiceID": f"{name}-1"}))
    assert refused(ask("agent/service/register", {"Name": name}))
    assert refused(ask("agent/service/register", {"Name": "something-else"}))
    assert refused(ask("session/create", {"Node": "lab3"}))
    assert refused(ask("agent/force-leave/lab3"))
    # What it may: its own services, its own session.
    allowed = ask("session/create", {"TTL": "10s"})
    assert allowed[0] == 200
    assert ask(f"session/destroy/{allowed[1]['ID']}")[0] == 200


@pytest.mark.parametrize("host", ["lab1", "lab4"])
def test_a_host_may_not_write_what_other_hosts_read(fleet: Fleet, host: str) -> None:
    mine = token_of(fleet, host)
    keys = [f"outrider/fleet/{here(fleet, host)}", "outrider/locks/fleet", "outrider/locks/consul-restart", "anything"]
    keys += ["outrider/backups/.fleet"]
    if host == "lab4":  # no Consul server: it is never elected to place what another host ran
        agents = {row["agent"] for row in fleet.status()["instances"] if row["host"] in ("lab1", "lab2")}
        others = sorted(agents - {"ObservabilityHub"})[0]
        keys += [f"outrider/placement/{others}", "outrider/hosts/lab1", "outrider/hosts/lab4", "outrider/locks/placer"]
        keys += [f"outrider/backups/{others}"]
        keys += ["outrider/migrations/mine/spec", "outrider/migrations/mine/journal/00000"]
        keys += ["outrider/moves/lab4/mine", "outrider/moves/lab1/mine"]
    for key in keys:
        before = fleet.consul(host, f"kv/{key}")
        assert fleet.consul(host, f"kv/{key}", token=mine, method="PUT", data={})[0] == 403, key
        assert fleet.consul(host, f"kv/{key}", token=mine, method="DELETE")[0] == 403, key
        assert fleet.consul(host, f"kv/{key}") == before


def test_a_host_may_not_read_secrets_nor_rights(fleet: Fleet) -> None:
    mine = token_of(fleet, "lab1")
    assert fleet.consul("lab1", "kv/secrets/of-another", method="PUT", data="hidden")[0] == 200
    assert refused(fleet.consul("lab1", "kv/secrets/of-another?raw", token=mine))
    assert refused(fleet.consul("lab1", "acl/tokens", token=mine))
    assert refused(fleet.consul("lab1", "operator/keyring", token=mine))
    assert refused(fleet.consul("lab1", "snapshot", token=mine))


def test_a_host_reads_the_keys_to_states_of_its_own_migrations_alone(fleet: Fleet) -> None:
    mine = token_of(fleet, "lab4")
    for host in ("lab3", "lab4"):
        key = f"kv/outrider/moves/{host}/Nobody"
        assert fleet.consul("lab1", key, token=token_of(fleet, "lab1"), method="PUT", data={"key": "k"})[0] == 200
        assert refused(fleet.consul("lab4", f"{key}?raw", token=mine)) == (host == "lab3")
        assert fleet.consul("lab1", key, token=token_of(fleet, "lab1"), method="DELETE")[0] == 200


def test_nobody_without_a_token_learns_anything(fleet: Fleet) -> None:
    for path in (
        "kv/outrider/?recurse",
        "catalog/nodes",
        "catalog/services",
        "agent/self",
        "health/state/any",
        "acl/tokens",
    ):
        ask = f"curl -s -w ' %{{http_code}}' 'http://127.0.0.1:8500/v1/{path}'"
        said, _, status = fleet.on("lab1", ask).rpartition(" ")
        assert status == "403" or said.strip() in ("[]", "{}", ""), (path, status, said)


def declared_ports(fleet: Fleet, name: str) -> set[int]:
    """Every port that the fleet file declares, and those that a host's instances chose where it says `auto`."""
    status, rows = fleet.consul("lab1", "kv/outrider/fleet/?recurse")
    assert status == 200
    agents = [json.loads(base64.b64decode(row["Value"]))["agent"] for row in rows]
    there = [
        settings
        for agent in agents
        for settings in (agent["hosts"].values() if isinstance(agent["hosts"], dict) else [])
    ]
    declared = [(declares or {}).get("ports", {}) for declares in (*agents, *there)]
    auto = {label for ports in declared for label, port in ports.items() if port == "auto"}
    status, node = fleet.consul("lab1", f"catalog/node/{name}")
    assert status == 200
    chosen = [json.loads(service["Meta"].get("ports", "{}")) for service in node["Services"].values()]
    return {port for ports in declared for port in ports.values() if port != "auto"} | {
        port for ports in chosen for label, port in ports.items() if label in auto
    }


@pytest.mark.parametrize("name", ["lab1", "lab4"])
def test_every_listener_is_on_the_list(fleet: Fleet, name: str) -> None:
    address, declared = fleet.lab.machines()[name].address, declared_ports(fleet, name)
    for line in fleet.on(name, "ss -Hltnup").splitlines():
        ip, _, port = line.split()[4].rpartition(":")
        found = re.search(r'users:\(\("([^"]+)"', line)
        who, ip = found[1] if found else "?", ip.split("%")[0].strip("[]")
        if who.startswith("python"):
            assert int(port) in declared, line
        elif who == "haproxy":
            assert (ip, int(port) in declared) == ("127.0.0.1", True), line
        elif ip.startswith("127."):
            assert LOOPBACK.get(int(port)) == who, line
        elif ip in ("0.0.0.0", "::", "*"):
            assert ANY.get(int(port)) == who, line
        else:
            assert (ip, HOST.get(int(port))) == (address, who), line


def test_listeners_refuse_who_has_no_certificate(fleet: Fleet) -> None:
    address = fleet.lab.machines()["lab1"].address
    for port, path in ((8501, "v1/status/leader"), (9321, "metrics"), (9105, "metrics")):
        url = f"https://{address}:{port}/{path}"
        assert fleet.on("lab1", f"curl -s -o /dev/null -w '%{{http_code}}' {MINE} {url}") == "200", url
        for stranger in (CA, f"-k {CA}", "-k"):
            assert fleet.on("lab1", f"curl -s -o /dev/null -w '%{{http_code}}' {stranger} {url}; true") == "000", url
        assert fleet.on("lab1", f"curl -s -o /dev/null -w '%{{http_code}}' http://{address}:{port}/{path}; true") in (
            "000",
            "400",
        )
    assert fleet.on("lab1", f"python3 -c {shlex.quote(STRANGER)} {address}").split() == ["closed", "certificate"]


def test_no_secret_is_where_others_see_it(fleet: Fleet, again: Played) -> None:
    """In no command line, agent's environment, log, unit or file that others may read; nor in Ansible's output."""
    assert again.status == 0, again.output
    tokens = fleet.tokens()
    secrets = [tokens["management"]["secret"], *(entry["secret"] for entry in tokens["hosts"].values())]
    secrets += [(fleet.secrets() / name).read_text().strip() for name in ("gossip.key", "peers.key")]
    for key in fleet.secrets().rglob("*-key.pem"):
        secrets.append(key.read_text().splitlines()[2])
    assert all(len(secret) > 20 for secret in secrets)
    assert [secret for secret in secrets if secret in fleet.first.output + again.output] == []
    for path in [fleet.secrets(), *fleet.secrets().rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    with ThreadPoolExecutor() as threads:
        found = dict(threads.map(lambda host: (host, seen_by_others(fleet, host, secrets)), fleet.lab.machines()))
    assert not any(found.values()), found


def seen_by_others(fleet: Fleet, host: str, secrets: list[str]) -> dict[str, str]:
    """What holds a secret on a host, if anything does: a count of lines, or the files' names."""
    fleet.put(host, "/root/.secrets", "\n".join(secrets) + "\n")
    look = {
        "command lines": "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'",
        "environments of agents": "for p in $(pgrep -u outrider-agent); do tr '\\0' '\\n' </proc/$p/environ; done",
        "journal": "journalctl --no-pager -o cat",
        "logs": "find /var/log -type f -not -path '*/journal/*' -exec cat {} +",
        "units": "systemctl cat 'outrider*' consul 2>/dev/null; true",
        "readable files": "find / -xdev -type f -perm /o+r -size -2000k -exec grep -lFf /root/.secrets {} + ; true",
    }
    found = {}
    for what, command in look.items():
        count = "cat" if what == "readable files" else "grep -cFf /root/.secrets"
        found[what] = fleet.on(host, f"({command}) 2>/dev/null | {count}; true").strip()
    fleet.on(host, "rm /root/.secrets")
    return {what: said for what, said in found.items() if said not in ("", "0")}


def test_an_agent_is_kept_from_what_is_not_its_own(fleet: Fleet) -> None:
    for user, path in (
        ("outrider-agent", "/etc/outrider/consul.token"),
        ("outrider-agent", "/etc/outrider/tls/host-key.pem"),
        ("outrider-agent", "/etc/outrider/peers.key"),
        ("outrider-agent", "/etc/consul.d/consul.json"),
        ("nobody", "/var/lib/outrider/launch/MemoryClient-1.json"),
        ("nobody", "/var/lib/outrider/config/MemoryClient-1.json"),
    ):
        assert "denied" in fleet.on("lab1", f"runuser -u {user} -- cat {path} 2>&1; true"), path
    start = "runuser -u outrider-agent -- systemctl restart outriderd 2>&1; true"
    assert re.search("denied|authentication", fleet.on("lab1", start), re.IGNORECASE)
