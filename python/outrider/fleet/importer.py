"""Reading start-up files into agents: what they hold in the wild is tolerated and reported, a stranger is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from outrider.errors import FleetError
from outrider.fleet.dialects import KNOWN, SCRIPT, SETTINGS, Found, agents_in, commented_out
from outrider.fleet.settings import Settings, environment_of, read_settings
from outrider.fleet.source import Place, Source

# Keys that become something of ours; whatever else an agent has is kept under `config` and reported.
READ = ("name", SCRIPT, "port", "health_check_port", "dependencies", "required", "config", "host", "environment")
ANYWHERE = ("0.0.0.0", "127.0.0.1", "localhost", "::", "")
OFFSET = re.compile(r"^\$\{?PORT_OFFSET(?::-(\d+))?\}?\s*\+\s*(\d+)$")
WORD = re.compile(r"[^A-Za-z0-9_-]+")


class ImportedAgent(Struct, frozen=True, omit_defaults=True):
    """One agent of one file, that is one instance. Ports are None where the file has none."""

    name: str
    host: str
    group: str
    script: str
    port: int | None
    health_port: int | None
    needs: tuple[str, ...]
    required: bool
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


class Imported(Struct, frozen=True):
    """What was read: hosts, agents per host, and everything a person should know about it."""

    hosts: tuple[str, ...]
    agents: tuple[ImportedAgent, ...]
    warnings: tuple[str, ...]
    settings: dict[str, Settings]


def import_files(paths: Sequence[Path], port_offset: int = 0, names: Mapping[Path, str] | None = None) -> Imported:
    """Read start-up files, one host each, named by `names` or by the first word of the file's name.

    Raises FleetError naming what it saw where it finds no agents.
    """
    files = [_File(path, (names or {}).get(path) or host_of(path), port_offset) for path in paths]
    agents = [agent for file in files for agent in file.agents]
    warnings = [warning for file in files for warning in file.warnings]
    known = {agent.name for agent in agents}
    for agent in agents:
        for need in agent.needs:
            if need not in known:
                warnings.append(f"{agent.host}: {agent.name} needs {need}, which is in none of the files; left out")
    hosts = tuple(dict.fromkeys(file.host for file in files))
    return Imported(
        hosts, tuple(_once(agents, warnings)), tuple(warnings), {file.host: file.settings for file in files}
    )


def host_of(path: Path) -> str:
    """The host that a start-up file is for: the first word of its name."""
    return re.split(r"[_.-]", path.name)[0] or path.stem


def _once(agents: Sequence[ImportedAgent], warnings: list[str]) -> Iterator[ImportedAgent]:
    seen: set[tuple[str, str]] = set()
    for agent in agents:
        if (agent.host, agent.name) in seen:
            warnings.append(f"{agent.host}: {agent.name} is there twice; the first one counts")
        else:
            yield agent
        seen.add((agent.host, agent.name))


class _File:
    """One start-up file: its agents, its settings, and what was odd about it."""

    def __init__(self, path: Path, host: str, offset: int) -> None:
        self.source = Source(path)
        self.host = host
        self._offset = offset
        self.warnings: list[str] = list(self.source.problems)
        data = self.source.data
        raw = data.get(SETTINGS) if isinstance(data, dict) else None
        self.settings = read_settings(self.source, raw, self.warnings)
        self.agents = list(self._read())
        if not self.agents:
            saw = ", ".join(f"`{key}`" for key in data) if isinstance(data, dict) else type(data).__name__
            raise FleetError([self.source.at((), f"no agents found; its top-level keys are {saw}; known: {KNOWN}")])
        names = commented_out(self.source.text)
        if names:
            self.warnings.append(f"{path}: commented out and not imported: {', '.join(names)}")

    def _read(self) -> Iterator[ImportedAgent]:
        used = {SETTINGS}
        for item in agents_in(self.source):
            used.add(str(item.place[0]) if item.place else "")
            if isinstance(item, Found):
                yield self._agent(item)
            else:
                self._say(item.place, item.text)
        for key in self.source.data if isinstance(self.source.data, dict) else ():
            if str(key) not in used:
                self._say((key,), f"`{key}` is not known here and is not imported")

    def _say(self, place: Place, text: str) -> None:
        self.warnings.append(self.source.at(place, text))

    def _agent(self, found: Found) -> ImportedAgent:
        body, place = found.body, found.place
        if not body.get(SCRIPT):
            self._say(place, f"{found.name} has no `{SCRIPT}`")
        if str(body.get("host") or "") not in ANYWHERE:
            self._say(
                (*place, "host"), f"{found.name}: the address {body['host']} is not carried: hosts have addresses"
            )
        return ImportedAgent(
            name=self._name(found.name, place),
            host=self.host,
            group=WORD.sub("-", found.group),
            script=str(body.get(SCRIPT) or ""),
            port=self._port(body.get("port"), (*place, "port")),
            health_port=self._port(body.get("health_check_port"), (*place, "health_check_port")),
            needs=self._needs(body.get("dependencies"), place),
            required=_truth(body.get("required")),
            config=self._config(found),
            environment=environment_of(self.source, body.get("environment"), (*place, "environment"), self.warnings),
        )

    def _name(self, name: str, place: Place) -> str:
        plain = WORD.sub("-", name)[:63].strip("-_") or "agent"
        if plain != name:
            self._say(place, f"`{name}` is no agent name here; it is called {plain}")
        return plain

    def _needs(self, value: Any, place: Place) -> tuple[str, ...]:
        """Names, given as a list or as text with commas; each once, in their order."""
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, dict):
            value = list(value)
        if value is not None and not isinstance(value, list):
            self._say((*place, "dependencies"), f"found {value!r}, expected a list of names; not imported")
        names = [
            item.get("name") if isinstance(item, dict) else item
            for item in (value or () if isinstance(value, list) else ())
        ]
        return tuple(dict.fromkeys(WORD.sub("-", str(name)).strip("-_") for name in names if name))

    def _config(self, found: Found) -> dict[str, Any]:
        given = found.body.get("config")
        if given is not None and not isinstance(given, dict):
            self._say((*found.place, "config"), f"{found.name}: found {given!r}, expected a mapping; kept as it is")
            given = {"config": given}
        unknown = {key: value for key, value in found.body.items() if key not in READ}
        for key in unknown:
            self._say((*found.place, key), f"{found.name}: `{key}` is not known here; kept under config")
        kept = self._plain({**(given or {}), **unknown})
        assert isinstance(kept, dict)
        return kept

    def _plain(self, value: Any) -> Any:
        """A value of config with text for keys and ports worked out: no shell will do that any more."""
        if isinstance(value, dict):
            return {str(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        return self._sum(value) if isinstance(value, str) and OFFSET.match(value.strip()) else value

    def _sum(self, text: str) -> int:
        matched = OFFSET.match(text.strip())
        assert matched is not None
        return int(matched[2]) + (self._offset or int(matched[1] or 0))

    def _port(self, value: Any, place: Place) -> int | None:
        """A number, a number as text, or `${PORT_OFFSET}+N`. Anything else is reported."""
        if value is None:
            self._say(place[:-1], f"no `{place[-1]}`")
            return None
        text = str(value).strip()
        number = self._sum(text) if OFFSET.match(text) else int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0
        if 0 < number < 65536:
            return number
        self._say(place, f"{value!r} is no port; not imported")
        return None


def _truth(value: Any) -> bool:
    """`required` as people write it; whatever is not clearly a no is a yes."""
    return str(value).strip().lower() not in ("false", "no", "off", "0")
