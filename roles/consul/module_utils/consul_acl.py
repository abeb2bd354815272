"""One policy and one token as they shall be in Consul, also when several hosts see to it at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible.module_utils.consul_acl_stores import NOT_FOUND, Wanted, is_linked, read_token, wait_for_all
from ansible.module_utils.consul_http import ConsulError, Servers, connect, retry

ATTEMPTS = 4


@dataclass(frozen=True)
class Change:
    """What differs, as steps in words, and the rules before."""

    steps: tuple[str, ...]
    rules_before: str


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """What module consul_token does and returns. Raises ConsulError."""
    present, policy, token = params["state"] == "present", params["policy"], params["token"]
    if present and not token["secret"] and not check_mode:
        raise ConsulError("token.secret is needed for state present", 400)
    secret = token["secret"] or ""
    parts = (policy["name"], policy["rules"], policy["description"], token["accessor"], secret, token["description"])
    wanted = Wanted(*parts)
    deadline = time.monotonic() + (0 if check_mode else params["wait_s"])
    not_reached: list[str] = []
    try:
        acl = Acl(connect(params), deadline)
        change = (acl.present if present else acl.absent)(wanted, check_mode)
        if present and not check_mode:
            stores = connect({**params, "servers": params["read_back"] or params["servers"]}).each
            not_reached = wait_for_all(stores, wanted, deadline)
    except ConsulError as error:
        if not check_mode or not error.passing:
            raise
        change, not_reached = Change(("create policy", "create token") if present else (), ""), params["servers"]
    steps = list(change.steps)
    return {"changed": bool(steps), "steps": steps, "not_reached": not_reached, "diff": _diff(change, wanted, present)}


def _diff(change: Change, wanted: Wanted, present: bool) -> dict[str, str]:
    before, after = (text.strip() and text.strip() + "\n" for text in (change.rules_before, wanted.rules * present))
    name = f"policy {wanted.policy}"
    return {"before": before, "after": after, "before_header": name, "after_header": name}


class Acl:
    """The cluster's ACL system. Methods raise ConsulError, after `deadline` (time.monotonic) for what may pass."""

    def __init__(self, servers: Servers, deadline: float) -> None:
        self._servers, self._deadline = servers, deadline

    def present(self, wanted: Wanted, check_mode: bool) -> Change:
        """Create or correct what differs; policy first, for a token is made with it."""
        self._wait_until_ready()
        done: list[str] = []
        before: list[str] = []
        for attempt in range(ATTEMPTS):
            policy, token = self._policy(wanted.policy), self._token(wanted.accessor)
            _refuse_other_secret(token, wanted)
            before.append(policy["Rules"] if policy else "")
            steps = _steps(policy, token, wanted)
            if check_mode:
                return Change(tuple(steps), before[0])
            try:
                for step in steps:
                    self._write(step, policy, token, wanted)
                    done.append(step)
                return Change(tuple(done), before[0])
            except ConsulError as error:
                # Another host was quicker with the same: look again.
                if not any(words in str(error) for words in ("already", "in use")) or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def absent(self, wanted: Wanted, check_mode: bool) -> Change:
        """Delete the token, then the policy."""
        self._wait_until_ready()
        policy, token = self._policy(wanted.policy), self._token(wanted.accessor)
        paths = {"delete token": f"acl/token/{wanted.accessor}"} if token else {}
        if policy:
            paths["delete policy"] = f"acl/policy/{policy['ID']}"
        for path in () if check_mode else paths.values():
            retry(partial(self._servers.delete, path), self._deadline)
        return Change(tuple(paths), (policy or {}).get("Rules", ""))

    def _wait_until_ready(self) -> None:
        """Until the leader made the management token, and no server is in legacy mode any more."""
        try:
            retry(lambda: self._servers.get("acl/policies"), self._deadline, also=NOT_FOUND)
        except ConsulError as error:
            if NOT_FOUND in str(error):
                raise ConsulError(f"{error}: the management token is not the one of this cluster", 403) from None
            raise

    def _policy(self, name: str) -> dict[str, Any] | None:
        for entry in retry(lambda: self._servers.get("acl/policies"), self._deadline):
            if entry["Name"] == name:
                path = f"acl/policy/{entry['ID']}"
                found: dict[str, Any] | None = retry(partial(self._servers.get, path), self._deadline)
                return found
        return None

    def _token(self, accessor: str) -> dict[str, Any] | None:
        return retry(lambda: read_token(self._servers, accessor), self._deadline)

    def _write(self, step: str, policy: Any, token: Any, wanted: Wanted) -> None:
        if step.endswith("policy"):
            path = "acl/policy" + (f"/{policy['ID']}" if policy else "")
            body: dict[str, Any] = {"ID": policy["ID"]} if policy else {}
            body |= {"Name": wanted.policy, "Description": wanted.policy_description, "Rules": wanted.rules}
        else:
            path = "acl/token" + (f"/{wanted.accessor}" if token else "")
            body = {"AccessorID": wanted.accessor, "SecretID": wanted.secret, "Description": wanted.description}
            body |= {"Policies": [{"Name": wanted.policy}], "Local": False}
        try:
            retry(lambda: self._servers.put(path, body), self._deadline)
        except ConsulError as error:
            raise ConsulError(str(error).replace(wanted.secret, "(secret)"), error.status) from None


def _steps(policy: dict[str, Any] | None, token: dict[str, Any] | None, wanted: Wanted) -> list[str]:
    """Pure: what must be written, policy first."""
    steps = []
    texts = (wanted.rules.strip(), wanted.policy_description)
    if not policy or (policy["Rules"].strip(), policy["Description"]) != texts:
        steps.append("update policy" if policy else "create policy")
    if not token or not is_linked(token, wanted) or token["Description"] != wanted.description:
        steps.append("update token" if token else "create token")
    return steps


def _refuse_other_secret(token: dict[str, Any] | None, wanted: Wanted) -> None:
    if token and token["SecretID"] != wanted.secret:
        raise ConsulError(
            f"the token {wanted.accessor} is in Consul with another secret, and Consul changes no secret: the tokens "
            "given are not those of this cluster, or `consul acl token delete` must remove it first",
            409,
        )
