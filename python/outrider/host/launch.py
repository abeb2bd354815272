"""From documents to a process: what to run and with which environment (pure), and the files it will find there."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from outrider.calls.endpoint import socket_path
from outrider.discovery import lease_file
from outrider.errors import HostError
from outrider.fleet.effective import agent_on
from outrider.fleet.ports import CALL
from outrider.fleet.spec import Agent
from outrider.host import deadman
from outrider.host.access import passable_folder
from outrider.host.config import Config
from outrider.host.placeholders import fill, main_port
from outrider.host.supervisor import Launch
from outrider.registry.layout import AgentDoc, Placed

INHERITED = ("PATH", "HOME", "LANG", "TZ")
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Folders(msgspec.Struct, frozen=True):
    """Files and folders of one instance. `state` and `release` are None if it has none."""

    config: Path
    heartbeat: Path
    calls: Path
    lease: Path
    state: Path | None
    release: Path | None


def config_file(instance: str, config: Config) -> Path:
    """Where an instance finds its configuration. It goes with it: it may hold what is nobody else's affair."""
    return config.state_dir / "config" / f"{instance}.json"


def folders_of(doc: AgentDoc, placed: Placed, config: Config) -> Folders:
    """Where the files of an instance are."""
    return Folders(
        config=config_file(placed.instance, config),
        heartbeat=config.runtime_dir / "beats" / placed.instance,
        calls=socket_path(config.runtime_dir, placed.instance).parent,
        lease=lease_file.lease_path(config.runtime_dir, placed.instance),
        state=config.agent_state / placed.instance if doc.agent.state else None,
        release=config.releases / doc.release if doc.release else None,
    )


def launch_of(
    doc: AgentDoc, placed: Placed, config: Config, ports: Mapping[str, int], inherited: Mapping[str, str] = os.environ
) -> Launch:
    """What to start for an instance. Reads no file. Raises HostError for a placeholder that names nothing."""
    agent = agent_on(doc.agent, placed.entry)
    folders = folders_of(doc, placed, config)
    cwd = folders.release or folders.state
    return Launch(
        instance=placed.instance,
        agent=doc.name,
        argv=_guarded(agent, folders, _argv(agent, folders, config, ports)),
        env=_environment(agent, config, inherited) | _our_environment(doc, placed, config, ports, folders),
        cwd=str(cwd) if cwd else "/",
        log_path=str(config.log_dir / "agents" / f"{placed.instance}.log"),
        user=agent.user,
        version=placed.version,
        stop_timeout_s=agent.stop_timeout_s,
        secrets=tuple(f"{name}_FILE" for name in agent.secrets),
    )


def prepare(launch: Launch, doc: AgentDoc, placed: Placed, config: Config) -> None:
    """Make what the process expects: its folders, its configuration file, its heartbeat file.

    Raises HostError naming a release that is not installed, a secret that cannot be read, or a folder that cannot
    be made.
    """
    agent = agent_on(doc.agent, placed.entry)
    folders = folders_of(doc, placed, config)
    if folders.release and not folders.release.is_dir():
        raise HostError(
            f"{launch.instance}: its release {doc.release} is not on this host ({folders.release})",
            hint="the role `agents` installs it: run site.yml",
        )
    _check_secrets(launch.instance, agent, config)
    try:
        _write_config(folders.config, agent)
        # Time zero means "not yet": what an earlier process left must not speak for this one.
        passable_folder(folders.heartbeat.parent)
        folders.heartbeat.touch(mode=0o600)
        os.utime(folders.heartbeat, (0, 0))
        if agent.mode == "singleton":
            passable_folder(folders.lease.parent)
            lease_file.LeaseWriter(folders.lease).close()
        if CALL in agent.ports:
            passable_folder(folders.calls.parent)
            passable_folder(folders.calls)
        if config.supervisor == "systemd":
            return  # the unit makes the state folder, and its user gets the files as it starts
        if folders.state:
            folders.state.mkdir(parents=True, exist_ok=True, mode=0o750)
        _give_to(launch.user, [folders.config, folders.heartbeat, folders.state])
        if folders.calls.is_dir():
            _give_to(launch.user, [folders.calls])
    except OSError as error:
        raise HostError(f"{launch.instance}: {error.filename or config.state_dir}: {error.strerror}") from error


def _argv(agent: Agent, folders: Folders, config: Config, ports: Mapping[str, int]) -> tuple[str, ...]:
    words = agent.command or (agent.python or sys.executable, "-m", agent.module or "", *agent.args)
    values = {
        "address": config.address,
        "state": str(folders.state or ""),
        "release": str(folders.release or ""),
    }
    return fill(words, ports, {name: value for name, value in values.items() if value})


def _guarded(agent: Agent, folders: Folders, argv: tuple[str, ...]) -> tuple[str, ...]:
    return deadman.command(folders.lease, argv) if agent.fence else argv


def _environment(agent: Agent, config: Config, inherited: Mapping[str, str]) -> dict[str, str]:
    """What the agent declares, over the little that it gets of the shim's own."""
    # With a unit of its own it has a user of its own, and that one's home.
    names = [name for name in INHERITED if not (name == "HOME" and config.supervisor == "systemd")]
    env = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    env |= {name: inherited[name] for name in names if inherited.get(name)}
    env["PYTHONUNBUFFERED"] = "1"  # a log line is seen when it is written, not when a buffer is full
    if agent.resources.threads:
        env |= dict.fromkeys(THREAD_LIMITS, str(agent.resources.threads))
    return env | agent.environment | {f"{name}_FILE": path for name, path in agent.secrets.items()}


def _our_environment(
    doc: AgentDoc, placed: Placed, config: Config, ports: Mapping[str, int], folders: Folders
) -> dict[str, str]:
    """The OUTRIDER_* variables, and the release on Python's path. Nothing that an agent declares replaces them."""
    env = {
        "OUTRIDER_FLEET": doc.fleet,
        "OUTRIDER_HOST": config.host,
        "OUTRIDER_AGENT": doc.name,
        "OUTRIDER_INSTANCE": placed.instance,
        "OUTRIDER_VERSION": placed.version,
        "OUTRIDER_RUNTIME": str(config.runtime_dir),
        "OUTRIDER_ADDRESS": config.address,
        "OUTRIDER_CONFIG": str(folders.config),
        "OUTRIDER_HEARTBEAT": str(folders.heartbeat),
        "OUTRIDER_NEEDS": ",".join(need.agent for need in agent_on(doc.agent, placed.entry).need_list()),
    }
    if config.calls_tls:
        env["OUTRIDER_CALLS_TLS"] = str(config.calls_tls)
    if doc.agent.mode == "singleton":
        env[lease_file.VARIABLE] = str(lease_file.lease_path(config.runtime_dir, placed.instance))
    if doc.agent.model:
        env["OUTRIDER_MODEL"] = doc.agent.model
    if port := main_port(ports):
        env["OUTRIDER_PORT"] = str(port)
    env |= {f"OUTRIDER_PORT_{name.upper().replace('-', '_')}": str(port) for name, port in ports.items()}
    if folders.state:
        env["OUTRIDER_STATE"] = str(folders.state)
    if folders.release:
        env["OUTRIDER_RELEASE"] = str(folders.release)
        declared = agent_on(doc.agent, placed.entry).environment.get("PYTHONPATH")
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folders.release), declared)))
    return env


def _check_secrets(instance: str, agent: Agent, config: Config) -> None:
    """A clear refusal now is better than an agent that fails on its own words later."""
    if config.supervisor == "systemd":
        return  # the unit's user may read what we may not; exec_agent looks as that user
    for name, path in agent.secrets.items():
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise HostError(
                f"{instance}: secret {name}: {path}: {error.strerror}",
                hint="put the file there, readable for the user that runs the agent and for nobody else",
            ) from error


def _write_config(path: Path, agent: Agent) -> None:
    passable_folder(path.parent)
    scratch = path.with_suffix(".tmp")
    scratch.unlink(missing_ok=True)
    with open(scratch, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(msgspec.json.encode(agent.config))
    scratch.replace(path)


def _give_to(user: str | None, paths: list[Path | None]) -> None:
    """Make `user` the owner, if we may and it exists; the supervisor says so if it does not."""
    if not user or os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam(user)
        for path in filter(None, paths):
            os.chown(path, entry.pw_uid, entry.pw_gid)
            for folder in path.parents[:2]:  # ours, in state_dir or runtime_dir: pass through, but not list
                folder.chmod(folder.stat().st_mode | 0o011)
