"""What a Python project needs at run time, out of a lock that pins more: pure, from metadata that is installed here.

The lock pins one tested set for everything, Ansible and the tests too. A host gets only what the project reaches.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from outrider.errors import ReleaseError

Pins = dict[str, str]


def closure(
    project: Path, extras: Iterable[str], alone: Iterable[Path], lock: Path, python_version: str, architecture: str
) -> Pins:
    """Version by name of all that `project` needs with its extras, and of what the files `alone` name, without more.

    `python_version` ("3.11") and `architecture` ("x86_64") are those of the hosts. Raises ReleaseError if the lock
    lacks something or contradicts a requirement, or if this interpreter has not what the lock says.
    """
    pins = _locked(lock)
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    optional = declared.get("optional-dependencies", {})
    if unknown := sorted(set(extras) - set(optional)):
        raise ReleaseError(f"{project / 'pyproject.toml'}: no extra {', '.join(unknown)}")
    roots = [*declared.get("dependencies", []), *(need for extra in extras for need in optional[extra])]
    environment = _environment(python_version, architecture)
    found = _walk([Requirement(root) for root in roots], pins, lock, environment)
    for file in alone:
        wanted = [need for need in _read(file) if _applies(need, "", environment)]
        found |= {_pinned(need, pins, lock) for need in wanted}
    return {name: pins[name] for name in sorted(found)}


def _walk(roots: list[Requirement], pins: Pins, lock: Path, environment: dict[str, str]) -> set[str]:
    seen: set[tuple[str, str]] = set()
    waiting = [root for root in roots if _applies(root, "", environment)]
    while waiting:
        requirement = waiting.pop()
        name = _pinned(requirement, pins, lock)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            waiting += [need for need in _needs(name, pins[name]) if _applies(need, extra, environment)]
    return {name for name, _ in seen}


def _needs(name: str, version: str) -> list[Requirement]:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ReleaseError(f"{name}=={version} of the lock is not installed here", hint="run `make setup`") from None
    if distribution.version != version:
        found = f"{name} {distribution.version} is installed here, and the lock says {version}"
        raise ReleaseError(found, hint="run `make setup`")
    return [Requirement(line) for line in distribution.requires or []]


def _pinned(requirement: Requirement, pins: Pins, lock: Path) -> str:
    """Its name as the lock's keys are written. Raises ReleaseError if the lock has it not, or another version."""
    name = canonicalize_name(requirement.name)
    if name not in pins:
        raise ReleaseError(f"{lock}: {requirement} is needed and not pinned", hint="run `make lock`")
    if not requirement.specifier.contains(pins[name], prereleases=True):
        raise ReleaseError(f"{lock}: {name}=={pins[name]} is not {requirement}", hint="run `make lock`")
    return name


def _applies(requirement: Requirement, extra: str, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})


def _environment(python_version: str, architecture: str) -> dict[str, str]:
    """What markers see on the hosts: CPython on Linux."""
    here = {name: str(value) for name, value in default_environment().items()}
    linux = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}
    python = {"python_version": python_version, "python_full_version": f"{python_version}.0"}
    cpython = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    return {**here, **linux, **python, **cpython, "platform_machine": architecture}


def _locked(lock: Path) -> Pins:
    pins: Pins = {}
    for requirement in _read(lock):
        exact = [clause.version for clause in requirement.specifier if clause.operator == "=="]
        if len(exact) != 1:
            raise ReleaseError(f"{lock}: {requirement} is not pinned to one version", hint="run `make lock`")
        pins[canonicalize_name(requirement.name)] = exact[0]
    return pins


def _read(file: Path) -> list[Requirement]:
    try:
        lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
        return [Requirement(line) for line in lines if line]
    except OSError as error:
        raise ReleaseError(f"{file}: {error.strerror}") from error
    except InvalidRequirement as error:
        raise ReleaseError(f"{file}: {error}") from error
