"""What a host's names resolve to, asked as programs ask, and one DNS question put to one server."""

from __future__ import annotations

import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ANSWER_S = 2.0
LOOKUP_S = 5.0
PAUSE_S = 0.2
A, SOA, IN = 1, 6, 1
# Files by which programs find their DNS servers; none of them may change.
STATE_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class Reply(NamedTuple):
    """What a DNS server said. `rcode` is a word such as NXDOMAIN; without an answer it says why there is none."""

    rcode: str
    records: int = 0

    @property
    def is_answer(self) -> bool:
        """Whether the server knew: the name, or that there is none. SERVFAIL and silence are no answers."""
        return self.rcode in ("NOERROR", "NXDOMAIN")


class Resolution(NamedTuple):
    """How a host resolves names: first address by name, and lines of the state files by path."""

    names: dict[str, str]
    state: dict[str, tuple[str, ...]]


def ask(server: str, port: int, name: str, kind: int = A, timeout_s: float = ANSWER_S) -> Reply:
    """One question by UDP."""
    number = secrets.randbits(16)
    labels = b"".join(bytes([len(label)]) + label for label in name.rstrip(".").encode("ascii").split(b"."))
    question = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, IN)
    try:
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(timeout_s)
            udp.connect((server, port))
            udp.send(question)
            return parse(udp.recv(4096), number)
    except socket.timeout:  # noqa: UP041 - Python 3.9 has not made it TimeoutError yet
        return Reply(f"no answer in {timeout_s:g} s")
    except OSError as error:
        return Reply(error.strerror or str(error))


def parse(message: bytes, number: int) -> Reply:
    """The reply in a datagram."""
    if len(message) < 12:
        return Reply("no DNS message")
    found, flags, _, records = struct.unpack("!4H", message[:8])
    if found != number or not flags & 0x8000:
        return Reply("another question's answer")
    return Reply(RCODES.get(flags & 0xF, f"RCODE {flags & 0xF}"), records)


def first_address(name: str) -> str:
    """The address that a program gets first; empty if the name does not resolve within LOOKUP_S."""
    # A process of its own, because a lookup cannot be given a time limit: systemd-resolved's own is 120 s.
    command = ["getent", "ahosts", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOOKUP_S, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.split() else ""


def observe(names: Iterable[str]) -> Resolution:
    """How the host resolves now. A name that does not resolve is not in it."""
    listed = list(dict.fromkeys(names))
    with ThreadPoolExecutor(max_workers=8) as pool:
        addresses = list(pool.map(first_address, listed))
    return Resolution({name: addresses[i] for i, name in enumerate(listed) if addresses[i]}, _state())


def _state() -> dict[str, tuple[str, ...]]:
    state = {}
    for path in map(Path, STATE_FILES):
        if path.exists():
            lines = path.read_text(errors="replace").splitlines()
            state[str(path)] = tuple(sorted(line.strip() for line in lines if line.strip() and line[0] not in "#;"))
    return state


def nameservers() -> list[str]:
    """Servers that programs ask, in their order."""
    lines = Path(STATE_FILES[0]).read_text(errors="replace").splitlines()
    return [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver"]


def lost(before: Resolution, after: Resolution, own_name: str) -> list[str]:
    """Pure: in words, what was right before and is not any more."""
    found = [f"{name} does not resolve (it was {was})" for name, was in before.names.items() if name not in after.names]
    was, now = before.names.get(own_name), after.names.get(own_name)
    # Other names may have several addresses in turns; a host's own must stay what it was.
    if was and now and was != now:
        found.append(f"the host's own name {own_name} became {now} (it was {was})")
    found += [
        f"{path} says {'; '.join(after.state.get(path, ())) or 'nothing'} (it was {'; '.join(lines) or 'nothing'})"
        for path, lines in before.state.items()
        if after.state.get(path, ()) != lines
    ]
    return found


def wait(problems: Callable[[], list[str]], within_s: float) -> list[str]:
    """Until there are none, for a resolver that restarts; else those that are left after `within_s`."""
    deadline = time.monotonic() + within_s
    while (left := problems()) and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
    return left
