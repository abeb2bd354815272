"""One policy of Consul's anonymous token. What others gave that token is kept."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.consul_http import ConsulError, Servers, connect, retry

# The same in every cluster.
ANONYMOUS = "acl/token/00000000-0000-0000-0000-000000000002"


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """What module consul_anonymous does and returns. Raises ConsulError."""
    wanted, present = params["policy"], params["state"] == "present"
    deadline = time.monotonic() + (0 if check_mode else params["wait_s"])
    try:
        servers = connect(params)
        policies = retry(lambda: servers.get("acl/policies"), deadline)
        ids = [entry["ID"] for entry in policies if entry["Name"] == wanted["name"]]
        old = retry(lambda: servers.get(f"acl/policy/{ids[0]}"), deadline) if ids else None
        token = retry(lambda: servers.get(ANONYMOUS), deadline)
        steps = _steps(old, token, wanted, present)
        for step in steps if not check_mode else ():
            _write(servers, step, old, token, wanted)
    except ConsulError as error:
        if not check_mode or not error.passing:
            raise
        old, steps = None, ["create policy", "link policy"] if present else []
    rules = {"before": (old or {}).get("Rules", ""), "after": wanted["rules"] if present else ""}
    diff = {key: text.strip() and text.strip() + "\n" for key, text in rules.items()}
    name = f"policy {wanted['name']} of the anonymous token"
    return {"changed": bool(steps), "steps": steps, "diff": {**diff, "before_header": name, "after_header": name}}


def _steps(old: dict[str, Any] | None, token: dict[str, Any], wanted: dict[str, str], present: bool) -> list[str]:
    """Pure: what must be written, in this order."""
    linked = any(link["Name"] == wanted["name"] for link in token.get("Policies") or [])
    if not present:
        return ["unlink policy"] * linked + ["delete policy"] * bool(old)
    steps = [] if old else ["create policy"]
    if old and (old["Rules"].strip(), old["Description"]) != (wanted["rules"].strip(), wanted["description"]):
        steps.append("update policy")
    return steps + ["link policy"] * (not linked)


def _write(servers: Servers, step: str, old: Any, token: dict[str, Any], wanted: dict[str, str]) -> None:
    path = "acl/policy" + (f"/{old['ID']}" if old else "")
    if step == "delete policy":
        servers.delete(path)
    elif step in ("create policy", "update policy"):
        body = {"ID": old["ID"]} if old else {}
        servers.put(
            path, {**body, "Name": wanted["name"], "Description": wanted["description"], "Rules": wanted["rules"]}
        )
    else:
        others = [{"Name": link["Name"]} for link in token.get("Policies") or [] if link["Name"] != wanted["name"]]
        mine = [{"Name": wanted["name"]}] * (step == "link policy")
        servers.put(ANONYMOUS, {**token, "Policies": others + mine})
