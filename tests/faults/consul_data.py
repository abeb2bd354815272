"""Faults of what Consul holds: a session, a token, everything."""

from __future__ import annotations

import json

from faults.observer import SINGLETONS
from faults.scene import FOUND_S, HOSTS, Scene
from hosts.fleet import until

SNAPSHOT, TOKEN = "/root/.snapshot", "/root/.revoked"
WIPED_S = 60.0


def end_session(scene: Scene) -> None:
    """session of a host's leases destroyed"""
    agent = scene.rng.choice(SINGLETONS)
    status, rows = scene.consul(f"kv/outrider/leases/{agent}")
    if status == 200 and (session := rows[0].get("Session")):
        scene.consul(f"session/destroy/{session}", method="PUT")


def revoke_token(scene: Scene) -> None:
    """token of a host revoked for 8 s"""
    host = scene.holder()[1]
    accessor = scene.fleet.tokens()["hosts"][host]["accessor"]
    token = until(lambda: (said := scene.consul(f"acl/token/{accessor}"))[0] == 200 and said[1], FOUND_S)
    kept = {key: token[key] for key in ("AccessorID", "SecretID", "Description", "Policies", "Local")}

    def undo() -> None:
        scene.fleet.put("lab4", TOKEN, json.dumps(kept))
        until(lambda: scene.consul("acl/token", "--data", f"@{TOKEN}", method="PUT")[0] == 200, WIPED_S)

    with scene.until_over(8.0, undo):
        scene.consul(f"acl/token/{accessor}", method="DELETE")


def wipe(scene: Scene) -> None:
    """Consul's data lost on all servers, and restored from a snapshot"""
    until(lambda: scene.consul("snapshot", "-o", SNAPSHOT)[0] == 200, FOUND_S)
    for host in HOSTS:
        scene.shell(host, "systemctl stop consul && rm -rf /var/lib/consul/raft")
    for host in HOSTS:
        scene.shell(host, "systemctl start consul")
    # The servers' configuration makes the token for management anew.
    until(lambda: scene.consul("snapshot", "--data-binary", f"@{SNAPSHOT}", method="PUT")[0] == 200, WIPED_S)
