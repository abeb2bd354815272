"""How changes are shown to people: YAML of both documents, without values that look secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from outrider.migration.changes import AgentChange, Documents
from outrider.migration.host_docs import HostChange

# Secrets belong into files (`secrets:`), but a diff ends up in logs, so what is only named like one is hidden too.
_SECRET = re.compile(r"token|secret|passw|credential|api_?key|private|(^|_)(key|pass|pwd|auth)$", re.IGNORECASE)
_HIDDEN = "(hidden)"


class Shown(Struct, frozen=True):
    """One agent's difference in the form that Ansible prints."""

    before_header: str
    after_header: str
    before: str
    after: str


def shown(changed: Iterable[AgentChange]) -> list[Shown]:
    """What differs, an agent each."""
    return [
        Shown(
            f"{change.name} (in Consul)", f"{change.name} ({_title(change)})", _text(change.before), _text(change.after)
        )
        for change in changed
        if change.kind != "unchanged"
    ]


def shown_hosts(changed: Iterable[HostChange]) -> list[Shown]:
    """What differs in what is known of hosts, a host each."""
    return [Shown(f"host {c.name} (in Consul)", f"host {c.name}", _plain(c.before), _plain(c.after)) for c in changed]


def summary(change: AgentChange) -> str:
    """A change in one line."""
    where = ", ".join(f"{placed.instance} on {placed.host}" for placed in change.after.instances)
    match change.kind:
        case "added":
            return f"add {change.name}: {where}"
        case "removed":
            return f"remove {change.name}: drain {', '.join(p.instance for p in change.before.instances) or 'nothing'}"
        case _:
            restarts = f"restart {', '.join(change.restarts)}" if change.restarts else "no restart"
            return f"change {change.name} ({', '.join(change.what)}): {restarts}"


def _title(change: AgentChange) -> str:
    return ", ".join((change.kind, *change.what))


def _text(docs: Documents) -> str:
    """Both documents as YAML; nothing for an agent that is not there."""
    if docs == Documents():
        return ""
    return _plain({name: doc for name, doc in msgspec.to_builtins(docs).items() if doc is not None})


def _plain(doc: Any) -> str:
    return "" if doc is None else plain_text(doc)


def plain_text(doc: Any) -> str:
    """A document as YAML, without what looks secret."""
    return str(yaml.safe_dump(_without_secrets(msgspec.to_builtins(doc)), sort_keys=True, allow_unicode=True))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        # `secrets` holds file names, which are worth seeing.
        return {key: _hide(key, item) if key != "secrets" else item for key, item in value.items() if item != {}}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value


def _hide(key: Any, value: Any) -> Any:
    if isinstance(value, str | int | float) and not isinstance(value, bool) and looks_secret(str(key)):
        return _HIDDEN
    return _without_secrets(value)


def looks_secret(name: str) -> bool:
    """Whether what is called so is better not shown."""
    return _SECRET.search(name) is not None
