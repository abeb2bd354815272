"""The controller's folder of secrets: certificates, keys and tokens, each made once and before it is used."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.host_certificates import (
    AUTHORITIES,
    KINDS,
    Host,
    Identity,
    SecretsError,
    identity,
    issue,
    key_pem,
    load_key,
    make_authority,
    new_key,
    pem,
    why_anew,
)
from ansible.module_utils.private_folder import close_to_others, locked, open_to_others, put, read
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

MANAGEMENT = "management"
FLEET_WIDE = (MANAGEMENT, "monitoring")  # tokens that are no host's
ABSENT = "it is not there"
OURS = ("*.pem", "gossip.key", "peers.key", "tokens.json", *KINDS, *(f"{kind}/*.pem" for kind in KINDS))
BACKUP = "restore it from your backup"
RESTORE = "restore them from your backup, or remove both: then a new CA is made and every host gets new certificates"


Authority = tuple[x509.Certificate | None, ec.EllipticCurvePrivateKey | None]


class Step(NamedTuple):
    """Something that is lacking. `do` makes it."""

    name: str
    why: str
    do: Callable[[], None]


def run(
    order: tuple[Path, str, int, datetime.datetime], hosts: list[Host], forget: list[str], check_mode: bool
) -> dict[str, list[Step]]:
    """Do, or in check mode find, all that is to be done. `order`: the arguments of Secrets. Raises SecretsError."""
    folder = order[0]
    with contextlib.nullcontext() if check_mode else locked(folder):
        lax = [
            Step(str(path), "open to others", partial(close_to_others, path)) for path in open_to_others(folder, OURS)
        ]
        secrets = Secrets(*order)
        steps = {"tightened": lax, "removed": secrets.leftover(forget), "made": secrets.lacking(hosts)}
        for step in [] if check_mode else [step for part in steps.values() for step in part]:
            step.do()
    return steps


class Secrets:
    """What lies in the folder. Raises SecretsError for what cannot be read and must not be replaced unasked."""

    def __init__(self, folder: Path, datacenter: str, renew_days: int, now: datetime.datetime) -> None:
        self._folder, self._datacenter, self._now = folder, datacenter, now
        self._renew_from = now + datetime.timedelta(days=renew_days)
        self._tokens = self._read_tokens()
        self._authorities = {name: self._read_authority(name) for name in dict.fromkeys(AUTHORITIES.values())}

    def lacking(self, hosts: list[Host]) -> list[Step]:
        """What must be made for these hosts, in order; all is looked at before any is made."""
        steps = [step for name in self._authorities for step in self._signed_by(name, hosts)]
        if not self._has_gossip_key():
            steps.append(Step("gossip.key", ABSENT, partial(self._make_key, "gossip.key")))
        # Fleets from before there were peers lack it; until all hosts have the same one, those that differ are deaf.
        if not self._has_key("peers.key", (32,)):
            steps.append(Step("peers.key", ABSENT, partial(self._make_key, "peers.key")))
        own = self._tokens.setdefault("hosts", {})
        for name, among in [*((n, self._tokens) for n in FLEET_WIDE), *((host.name, own) for host in hosts)]:
            if name not in among:
                steps.append(Step(f"tokens.json: {name}", ABSENT, partial(self._add_token, name, among)))
        return steps

    def _signed_by(self, name: str, hosts: list[Host]) -> list[Step]:
        """What must be made of an authority, and of what it signs."""
        authority, key = self._authorities[name]
        steps = [] if authority else [Step(f"{name}.pem", ABSENT, partial(self._make_authority, name))]
        kinds = [kind for kind, signer in AUTHORITIES.items() if signer == name]
        steps += [step for host in hosts for kind in kinds if (step := self._certificate(kind, host))]
        if steps and authority and not key:
            raise SecretsError(
                f"{steps[0].name} must be made ({steps[0].why}), and {name}-key.pem is not there; {RESTORE}"
            )
        return steps

    def _certificate(self, kind: str, host: Host) -> Step | None:
        name, who = f"{kind}/{host.name}", identity(kind, host, self._datacenter)
        old, old_key = self._read(f"{name}.pem"), self._read(f"{name}-key.pem")
        why = "the CA is a new one" if old else ABSENT
        if authority := self._authorities[AUTHORITIES[kind]][0]:
            why = why_anew(old, old_key, who, authority, self._renew_from)
        return Step(f"{name}.pem", why, partial(self._make_certificate, kind, name, who)) if why else None

    def leftover(self, names: list[str]) -> list[Step]:
        """What must be removed so that nothing is left of these hosts."""
        steps = []
        for name in names:
            identity(KINDS[0], Host(name), self._datacenter)  # a name, and not a path that leads elsewhere
            files = [f"{kind}/{name}{end}" for kind in KINDS for end in (".pem", "-key.pem")]
            steps += [Step(f, "forgotten", partial(self._remove, f)) for f in files if (self._folder / f).exists()]
            if name in self._tokens.get("hosts", {}):
                steps.append(Step(f"tokens.json: {name}", "forgotten", partial(self._drop_token, name)))
        return steps

    def _read_tokens(self) -> dict[str, Any]:
        data = self._read("tokens.json")
        try:
            tokens: dict[str, Any] = json.loads(data) if data else {}
            for entry in (*(tokens[n] for n in FLEET_WIDE if n in tokens), *tokens.get("hosts", {}).values()):
                uuid.UUID(entry["accessor"]), uuid.UUID(entry["secret"])
        except (ValueError, TypeError, KeyError, AttributeError):
            # Never the exception's own words: they could quote a secret.
            raise SecretsError(f"{self._folder / 'tokens.json'} is damaged; {BACKUP}") from None
        return tokens

    def _read_authority(self, name: str) -> Authority:
        data, key_data = self._read(f"{name}.pem"), self._read(f"{name}-key.pem")
        try:
            key = load_key(key_data) if key_data is not None else None
            found = x509.load_pem_x509_certificate(data) if data is not None else None
        except (ValueError, TypeError):
            raise SecretsError(f"{self._folder}: {name}.pem or {name}-key.pem is damaged; {RESTORE}") from None
        if found and key and key.public_key() != found.public_key():
            raise SecretsError(f"{self._folder}: {name}.pem and {name}-key.pem are no pair; {RESTORE}")
        if found and found.not_valid_after_utc <= self._now:
            ended = self._folder / f"{name}.pem"
            raise SecretsError(f"{ended} has ended; remove it and {name}-key.pem, and a new CA is made")
        return found, key

    def _read(self, name: str) -> bytes | None:
        return read(self._folder / name)

    def _has_gossip_key(self) -> bool:
        there = self._has_key("gossip.key", (16, 24, 32))
        if not there and MANAGEMENT in self._tokens:
            raise SecretsError(f"{self._folder / 'gossip.key'} is gone, and a new one would split the fleet; {BACKUP}")
        return there

    def _has_key(self, name: str, sizes: tuple[int, ...]) -> bool:
        data = self._read(name)
        try:
            if data is not None and len(base64.b64decode(data.strip(), validate=True)) not in sizes:
                raise ValueError
        except ValueError:
            raise SecretsError(f"{self._folder / name} is damaged; {BACKUP}") from None
        return data is not None

    def _make_authority(self, name: str) -> None:
        # The key that a broken-off run made is used.
        key = self._authorities[name][1] or new_key()
        self._put(f"{name}-key.pem", key_pem(key))
        title = f"Outrider {'calls ' if name == AUTHORITIES['calls'] else ''}CA {self._datacenter}"
        authority = make_authority(title, key, self._now)
        self._put(f"{name}.pem", pem(authority))
        self._authorities[name] = authority, key

    def _make_certificate(self, kind: str, name: str, who: Identity) -> None:
        authority, authority_key = self._authorities[AUTHORITIES[kind]]
        assert authority, "made before"
        assert authority_key, "looked at before"
        key = new_key()
        made = issue(who, key, authority, authority_key, self._now)
        self._put(f"{name}-key.pem", key_pem(key))
        self._put(f"{name}.pem", pem(made))

    def _make_key(self, name: str) -> None:
        self._put(name, base64.b64encode(os.urandom(32)) + b"\n")

    def _add_token(self, name: str, among: dict[str, Any]) -> None:
        # Both from the system's random source.
        among[name] = {"accessor": str(uuid.uuid4()), "secret": str(uuid.uuid4())}
        self._put_tokens()

    def _drop_token(self, host: str) -> None:
        del self._tokens["hosts"][host]
        self._put_tokens()

    def _put_tokens(self) -> None:
        self._put("tokens.json", json.dumps(self._tokens, indent=1, sort_keys=True).encode() + b"\n")

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        put(self._folder / name, data)
