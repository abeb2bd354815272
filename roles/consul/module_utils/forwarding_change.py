"""Changes what a host's resolver does with .consul, and takes it back unless every name resolves as it did before."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.consul_forwarding import RESOLVERS, Command, Dnsmasq, Refused, Resolved
from ansible.module_utils.file_batch import FileSetError, Plan, differences, parse_files, shown
from ansible.module_utils.file_writing import validate_only, write
from ansible.module_utils.name_resolution import SOA, Reply, ask, first_address, lost, observe, wait

Result = dict[str, Any]
DNS_PORT = 53
DOMAIN = "consul"
# Every Consul registers it by itself.
CONSUL = "consul.service.consul"


class Change:
    """One run of module consul_dns. Methods raise Refused: nothing was changed, or it was taken back."""

    def __init__(self, params: dict[str, Any], command: Command, scratch: str, check_mode: bool) -> None:
        self.check_mode, self.scratch, self.settle_s = check_mode, scratch, params["settle_s"]
        self.server, self.port = params["server"], params["port"]
        self.kinds = {name: kind(command, self.server, self.port) for name, kind in RESOLVERS.items()}
        self.own_name = socket.gethostname()
        self.names = [self.own_name, "localhost", *params["check_names"]]

    def present(self, resolver: str) -> Result:
        """Forward names under .consul."""
        chosen = self.kinds[resolver]
        for name, other in self.kinds.items():
            if other is not chosen and os.path.exists(other.file):
                raise Refused(f"{name} forwards .consul by {other.file}; remove that with state absent first")
        chosen.require()
        direct = self._direct()
        if not direct.is_answer and not self.check_mode:
            raise Refused(f"Consul's DNS at {self.server} port {self.port} does not answer {CONSUL}: {direct.rcode}")
        file = {"path": chosen.file, "content": chosen.content(), "validate": list(chosen.validate)}
        plan = differences(parse_files([file]), [], [], self.check_mode)
        works = chosen.is_applied() and (self.check_mode or not self._not_forwarded(chosen))
        result = {"changed": bool(plan.files) or not works, "consul_says": direct.rcode, "diff": shown(plan)}
        if self.check_mode:
            validate_only(plan, self.scratch)
        elif result["changed"]:
            self._put(chosen, plan)
        return result

    def absent(self) -> Result:
        """Remove what forwards them. Only what this module wrote is looked for."""
        found = [each for each in self.kinds.values() if os.path.exists(each.file)]
        self.names = [name for name in self.names if name.rstrip(".").rpartition(".")[2] != DOMAIN]
        plan = differences([], [], [each.file for each in found], self.check_mode)
        for each in found if not self.check_mode else ():
            old = Path(each.file).read_bytes()
            self._try(f"without {each.file}", partial(_remove, each), partial(_restore, each, old), list)
        return {"changed": bool(found), "consul_says": "", "diff": shown(plan)}

    def _put(self, chosen: Resolved | Dnsmasq, plan: Plan) -> None:
        old = Path(chosen.file).read_bytes() if os.path.exists(chosen.file) else None

        def do() -> None:
            write(plan)
            chosen.apply()

        undo = partial(_remove, chosen) if old is None else partial(_restore, chosen, old)
        self._try(f"with {chosen.file}", do, undo, lambda: self._not_forwarded(chosen))

    def _try(self, words: str, do: Callable[[], None], undo: Callable[[], None], also: Callable[[], list[str]]) -> None:
        """`also` finds further problems. Raises Refused with what no longer resolved, after undoing it."""
        before = observe(self.names)

        def changed_names() -> list[str]:
            found: list[str] = lost(before, observe(self.names), self.own_name)
            return found

        try:
            do()
            problems = wait(lambda: changed_names() or also(), self.settle_s)
        except (Refused, FileSetError, OSError) as error:
            problems = [str(error)]
        if not problems:
            return
        try:
            undo()
            left = wait(changed_names, self.settle_s)
        except (Refused, FileSetError, OSError) as error:
            left = [str(error)]
        now = f"but it is not: {'; '.join(left)}" if left else "and the resolver is as it was"
        raise Refused(f"{words}: {'; '.join(problems)}. This was taken back, {now}")

    def _direct(self) -> Reply:
        return ask(self.server, self.port, CONSUL)

    def _not_forwarded(self, chosen: Resolved | Dnsmasq) -> list[str]:
        """What shows that the resolver does not ask Consul, though Consul answers."""
        # Consul alone has authority over the domain, and says so whatever the ACLs hide.
        replies = {address: ask(address, DNS_PORT, DOMAIN, SOA) for address in chosen.asked()}
        if wrong := {address: reply for address, reply in replies.items() if reply.rcode != "NOERROR"}:
            return [f"{address} does not ask Consul for {DOMAIN}: {reply.rcode}" for address, reply in wrong.items()]
        direct = self._direct()
        if not direct.is_answer:
            return [f"Consul's DNS does not answer any more: {direct.rcode}"]
        if direct.records and not first_address(CONSUL):
            return [f"{CONSUL} does not resolve, and Consul knows it"]
        return []


def _remove(forwarding: Resolved | Dnsmasq) -> None:
    forwarding.withdraw()
    Path(forwarding.file).unlink(missing_ok=True)
    forwarding.withdrawn()


def _restore(forwarding: Resolved | Dnsmasq, content: bytes) -> None:
    text = content.decode(errors="surrogateescape")
    write(differences(parse_files([{"path": forwarding.file, "content": text}]), [], [], False))
    forwarding.apply()
