"""What a set of files shall be on this host, and how that differs from what is there. Nothing is written here."""

from __future__ import annotations

import glob
import grp
import os
import pwd
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_KEYS = {"path", "content", "mode", "owner", "group", "validate", "secret"}
FOLDER_KEYS = {"path", "mode", "owner", "group"}


class FileSetError(Exception):
    """Which file is wrong, and how. `done`: what was changed all the same."""

    def __init__(self, message: str, done: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.done = done

    def __str__(self) -> str:
        return (
            f"{self.args[0]}\n{'Changed before that: ' + ', '.join(self.done) if self.done else 'Nothing was changed.'}"
        )


@dataclass(frozen=True)
class Entry:
    """A file or, without content, a folder."""

    path: str
    mode: int
    owner: str
    group: str
    content: bytes | None = None
    validate: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True)
class Plan:
    """What differs. `before` holds the content of each file that will be replaced and is there."""

    folders: list[Entry]
    files: list[Entry]
    absent: list[str]
    before: dict[str, bytes]

    def paths(self) -> list[str]:
        return [*(entry.path for entry in [*self.folders, *self.files]), *self.absent]


def parse_files(given: list[dict[str, Any]]) -> list[Entry]:
    """Raises FileSetError. Checked here and not by Ansible, whose messages would carry the values."""
    entries = []
    for number, each in enumerate(given):
        common = _common(f"files[{number}]", each, FILE_KEYS, "0644")
        content = each.get("content")
        if not isinstance(content, str):
            kind = type(content).__name__
            raise FileSetError(f"{common['path']}: content must be a string, not {kind}; to_json makes one")
        check = _command(common["path"], each.get("validate"))
        secret = each.get("secret", False)
        if not isinstance(secret, bool):
            raise FileSetError(f"{common['path']}: secret must be true or false")
        entries.append(Entry(**common, content=content.encode(errors="surrogateescape"), validate=check, secret=secret))
    _once(entries)
    return entries


def parse_folders(given: list[dict[str, Any]]) -> list[Entry]:
    """Outer folders first. Raises FileSetError."""
    entries = [Entry(**_common(f"folders[{n}]", each, FOLDER_KEYS, "0755")) for n, each in enumerate(given)]
    _once(entries)
    return sorted(entries, key=lambda entry: entry.path)


def _common(place: str, each: dict[str, Any], known: set[str], mode: str) -> dict[str, Any]:
    if unknown := sorted(set(each) - known):
        raise FileSetError(f"{place}: {unknown[0]!r} is not known; known are {', '.join(sorted(known))}")
    path = each.get("path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise FileSetError(f"{place}: path must be an absolute path")
    text = each.get("mode", mode)
    # An unquoted 0644 arrives as the number 420: refused, because it reads as another mode.
    if not isinstance(text, str) or not re.fullmatch("0[0-7]{3,4}", text):
        raise FileSetError(f'{path}: mode must be a quoted octal number like "{mode}"')
    owners = {key: str(each.get(key) or "root") for key in ("owner", "group")}
    return {"path": os.path.normpath(path), "mode": int(text, 8), **owners}


def _command(path: str, given: Any) -> tuple[str, ...]:
    command = tuple(shlex.split(given) if isinstance(given, str) else map(str, given or ()))
    if command and not any("%s" in word for word in command):
        raise FileSetError(f"{path}: validate must have %s where the file's name goes")
    return command


def _once(entries: list[Entry]) -> None:
    paths = [entry.path for entry in entries]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise FileSetError(f"{twice[0]}: listed twice")


def differences(files: list[Entry], folders: list[Entry], absent: list[str], check_mode: bool) -> Plan:
    """Reads the host. A user or group that is not there yet differs in check mode, and is an error otherwise."""
    wanted = {entry.path for entry in files}
    plan = Plan([], [], [path for path in _matches(absent) if path not in wanted], {})
    for folder in folders:
        if os.path.lexists(folder.path) and not os.path.isdir(folder.path):
            raise FileSetError(f"{folder.path}: is there and is no folder")
        if not _same(folder, os.stat(folder.path) if os.path.isdir(folder.path) else None, check_mode):
            plan.folders.append(folder)
    for file in files:
        # Of a link the link is replaced, never what it points to.
        found = os.lstat(file.path) if os.path.lexists(file.path) else None
        if found and stat.S_ISDIR(found.st_mode):
            raise FileSetError(f"{file.path}: is a folder")
        content = Path(file.path).read_bytes() if found and stat.S_ISREG(found.st_mode) else None
        if not _same(file, found, check_mode) or content != file.content:
            plan.files.append(file)
            if content is not None:
                plan.before[file.path] = content
    return plan


def _matches(patterns: list[str]) -> list[str]:
    """Files, links too, that one of the patterns names. What is listed by name and is a folder is an error."""
    found = []
    for pattern in patterns:
        if not pattern.startswith("/"):
            raise FileSetError(f"absent: {pattern} must be an absolute path")
        if not glob.has_magic(pattern) and os.path.isdir(pattern) and not os.path.islink(pattern):
            raise FileSetError(f"absent: {pattern} is a folder; only files are removed")
        found += [path for path in glob.glob(pattern) if os.path.islink(path) or not os.path.isdir(path)]
        if os.path.islink(pattern):  # glob passes over a link that points nowhere
            found.append(pattern)
    return sorted({os.path.normpath(path) for path in found})


def _same(entry: Entry, found: os.stat_result | None, check_mode: bool) -> bool:
    try:
        ids = owner_ids(entry)
    except FileSetError:
        if not check_mode:
            raise
        return False
    if found is None or stat.S_ISLNK(found.st_mode):
        return False
    return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (entry.mode, *ids)


def owner_ids(entry: Entry) -> tuple[int, int]:
    """User and group by number. Raises FileSetError if there is no such user or group."""
    try:
        user = int(entry.owner) if entry.owner.isdigit() else pwd.getpwnam(entry.owner).pw_uid
        return user, int(entry.group) if entry.group.isdigit() else grp.getgrnam(entry.group).gr_gid
    except KeyError as error:
        raise FileSetError(f"{entry.path}: {error.args[0]}") from None


def shown(plan: Plan) -> list[dict[str, str]]:
    """Ansible's diff of each path; of a secret file only that it differs, not how."""
    parts = [_part(entry.path, _attributes_now(entry.path), _attributes(entry)) for entry in plan.folders]
    for file in plan.files:
        old = plan.before.get(file.path)
        if file.content != old:
            before = "" if old is None else "(secret) as it was\n" if file.secret else old.decode(errors="replace")
            after = "(secret) as it shall be\n" if file.secret else (file.content or b"").decode(errors="replace")
            parts.append(_part(file.path, before, after))
        now, then = _attributes_now(file.path), _attributes(file)
        if now != then:
            parts.append(_part(f"{file.path} (mode, owner, group)", now, then))
    return parts + [_part(path, "(a file)\n", "") for path in plan.absent]


def _part(name: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": name, "after_header": name, "before": before, "after": after}


def _attributes(entry: Entry) -> str:
    return f"{entry.mode:04o} {entry.owner} {entry.group}\n"


def _attributes_now(path: str) -> str:
    try:
        found = os.lstat(path)
    except OSError:
        return ""
    try:
        names = f"{pwd.getpwuid(found.st_uid).pw_name} {grp.getgrgid(found.st_gid).gr_name}"
    except KeyError:
        names = f"{found.st_uid} {found.st_gid}"
    return f"{'a link ' * stat.S_ISLNK(found.st_mode)}{stat.S_IMODE(found.st_mode):04o} {names}\n"
