"""Faults of what Consul holds: a session, a token, everything."""

from __future__ import annotations

import contextlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

from faults.observer import SINGLETONS
from faults.scene import FOUND_S, HOSTS, Scene
from hosts.fleet import until

SNAPSHOT, TOKEN, FLOCK_TOKEN = "/root/.snapshot", "/root/.revoked", "/root/.flock-token"
PYTHON = "/opt/outrider/venv/bin/python"
WIPED_S = 60.0


FLOCK = """
import http.client, json, random, sys, time
host, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
line, token = http.client.HTTPConnection("127.0.0.1", 8500, timeout=5), open("/root/.flock-token").read()
def put(path, said=None):
    try:
        line.request("PUT", "/v1/agent/" + path, json.dumps(said) if said else None, {"X-Consul-Token": token})
        line.getresponse().read()
    except (OSError, http.client.HTTPException):
        line.close()
names = [f"Flock-{host}-{number}" for number in range(25)]
for name in names:
    check = {"CheckID": "flock:" + name, "TTL": "1h", "Status": "passing"}
    service = {"ID": name, "Name": "Flock", "Address": "127.0.0.1", "Port": 9, "Tags": ["outrider"], "Check": check}
    put("service/register", service | {"Meta": {"host": host, "version": "1", "epoch": "0"}})
while time.monotonic() < end:
    status = random.choice(("passing", "critical"))
    put("check/update/flock:" + random.choice(names), {"Status": status, "Output": "flaps"})
    time.sleep(0.02)
for name in names:
    put("service/deregister/" + name)
"""


def end_session(scene: Scene) -> None:
    """session of a host's leases destroyed"""
    agent = scene.rng.choice(SINGLETONS)
    status, rows = scene.consul(f"kv/outrider/leases/{agent}")
    if status == 200 and (session := rows[0].get("Session")):
        scene.consul(f"session/destroy/{session}", method="PUT")


def flap(scene: Scene) -> None:
    """100 instances that nobody runs flap for 8 s, each twice a second"""
    hosts = scene.fleet.lab.machines()

    def beside(host: str) -> None:
        with contextlib.suppress(LookupError, subprocess.CalledProcessError):
            scene.fleet.put(host, FLOCK_TOKEN, scene.fleet.tokens()["management"]["secret"])
            hosts[host].run(PYTHON, "-c", FLOCK, host, "8", check=False)

    with ThreadPoolExecutor(len(hosts)) as threads:
        list(threads.map(beside, hosts))


def revoke_token(scene: Scene) -> None:
    """token of a host revoked for 8 s"""
    host = scene.holder()[1]
    accessor = scene.fleet.tokens()["hosts"][host]["accessor"]
    token = until(lambda: (said := scene.consul(f"acl/token/{accessor}"))[0] == 200 and said[1], FOUND_S)
    kept = {key: token[key] for key in ("AccessorID", "SecretID", "Description", "Policies", "Local")}

    def undo() -> None:
        scene.fleet.put("lab4", TOKEN, json.dumps(kept))
        until(lambda: scene.consul("acl/token", "--data", f"@{TOKEN}", method="PUT")[0] == 200, WIPED_S)

    with scene.consul_alone, scene.until_over(8.0, undo):
        scene.consul(f"acl/token/{accessor}", method="DELETE")


def wipe(scene: Scene) -> None:
    """Consul's data lost on all servers, and restored from a snapshot"""
    with scene.consul_alone:
        _wipe(scene)


def _wipe(scene: Scene) -> None:
    until(lambda: scene.consul("snapshot", "-o", SNAPSHOT)[0] == 200, FOUND_S)
    for host in HOSTS:
        scene.shell(host, "systemctl stop consul && rm -rf /var/lib/consul/raft")
    for host in HOSTS:
        scene.shell(host, "systemctl start consul")
    # The servers' configuration makes the token for management anew.
    until(lambda: scene.consul("snapshot", "--data-binary", f"@{SNAPSHOT}", method="PUT")[0] == 200, WIPED_S)
