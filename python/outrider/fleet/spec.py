"""What a fleet file may say about an agent, as types: the one source of validation, JSON Schema and reference page.

A Struct's docstring line `name: text` documents the field `name`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Port = Annotated[int, Meta(ge=1, le=65535)]
Mode = Literal["replicated", "singleton"]
WINDOW = "^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$"
ProbeType = Literal["http", "tcp", "zmq", "command", "heartbeat", "call"]


class Code(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where an agent's code comes from: exactly one of a folder, a wheel or a git repository.

    path: folder, relative to the fleet file
    wheel: wheel file, relative to the fleet file
    git: repository, an address or a path; needs ref
    ref: commit, tag or branch of git
    sha256: checksum that the wheel, or the packed folder, must have
    """

    path: str | None = None
    wheel: str | None = None
    git: str | None = None
    ref: str | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None


class Probe(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the shim asks an instance whether it is well.

    type: http (GET is below 400), tcp (connects), zmq (REQ is answered), command (exits 0), heartbeat (file touched),
        call (the health method of an agent that serves calls). tcp finds hardly any hang: the kernel takes connections
        for a process that stands still, until its queue is full
    port: name of the port to ask; by default `health` where the agent has one, else `main`
    path: path of an http probe
    request: what a zmq probe sends
    command: command of a command probe
    interval_s: seconds from one probe to the next
    timeout_s: seconds an answer may take; for a heartbeat, the age at which it is stale. With the defaults a hang is
        seen within interval_s + failures x timeout_s = 0.5 + 2 x 0.4 = 1.3 s: who fails is asked again at once
    failures: failures in a row after which the instance is critical
    hang: kill (an instance that was ready and then gives no answer at all is killed, the restart policy replaces it)
        or keep (it is only taken out of routing until it answers; for agents that may be too busy to answer, or hold
        Python's lock, for longer than failures x timeout_s). A bad answer, such as status 500, never kills
    """

    type: ProbeType = "http"
    port: str = ""
    path: str = "/health"
    request: str = '{"action": "health"}'
    command: tuple[str, ...] = ()
    interval_s: Annotated[float, Meta(ge=0.05, le=3600)] = 0.5
    timeout_s: Annotated[float, Meta(ge=0.01, le=3600)] = 0.4
    failures: Annotated[int, Meta(ge=1, le=1000)] = 2
    hang: Literal["kill", "keep"] = "kill"


class Need(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent that this one calls.

    agent: its name
    required: false if this agent can work without it
    fallback: what this agent does without it, for people to read
    """

    agent: str
    required: bool = True
    fallback: str = ""


class Resources(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one instance may use; placement adds these up per host.

    cpu: cores
    memory_mib: memory in MiB
    vram_mib: GPU memory in MiB
    threads: threads its numeric libraries may start
    priority: 0 to 100; what is higher is placed first and evicted last
    """

    cpu: Annotated[float, Meta(gt=0)] | None = None
    memory_mib: Annotated[int, Meta(gt=0)] | None = None
    vram_mib: Annotated[int, Meta(ge=0)] | None = None
    threads: Annotated[int, Meta(gt=0)] | None = None
    priority: Annotated[int, Meta(ge=0, le=100)] = 50


class Restart(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happens when an instance exits by itself.

    policy: always, on-failure (exit status other than 0) or never
    backoff_s: seconds before the second restart in a row; doubles each time, the first is at once
    max_backoff_s: seconds that the wait never exceeds
    park_after: failures in a row, without ten seconds of being ready between them, after which it is parked: not
        started again until `outrider restart` or a new version; 0: never. What the host refuses to start at all is not
        counted
    """

    policy: Literal["always", "on-failure", "never"] = "always"
    backoff_s: Annotated[float, Meta(ge=0)] = 0.5
    max_backoff_s: Annotated[float, Meta(ge=0)] = 30.0
    park_after: Annotated[int, Meta(ge=0, le=100000)] = 10


class OnHost(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What differs for the instance on one host.

    ports: ports that differ there
    environment: variables added or replaced there
    config: keys of config added or replaced there
    needs: needs instead of the agent's
    """

    ports: dict[str, Port | Literal["auto"]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str | Need, ...] | None = None


class Agent(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One agent of the fleet.

    command: program and arguments; `{port}`, `{ports.NAME}`, `{address}`, `{state}`, `{release}` are filled in
    module: Python module to run instead of a command
    args: arguments of the module
    python: interpreter for module; by default the shim's own
    code: where its code comes from
    user: system user it runs as; ignored where the shim is not privileged
    environment: variables it gets
    secrets: variable name to file on the host; the agent gets NAME_FILE, never the value
    config: any mapping; the agent finds it as JSON in the file $OUTRIDER_CONFIG
    hosts: inventory hosts or groups it may run on, as a list or as a mapping to what differs there; none: any host
    labels: labels that a host must have
    mode: replicated (any healthy instance may serve) or singleton (exactly one may serve at a time)
    count: instances of a replicated agent; by default one for each entry of hosts
    standbys: instances of a singleton that hold no lease: warm ones, and with `fence` cold ones
    fence: deadman (of a singleton that does not serve calls: its process starts only while it holds the lease, and is
        killed when that is over); none: nothing ends a process that lost its lease, so that nobody else gets it
    ports: port name to number, or auto; `main` is the one that callers use
    probes: how it is asked whether it is well; by default one http probe, or tcp without a health port
    needs: agents it calls
    resources: what it may use
    state: true if it keeps files; it then gets a folder of its own in $OUTRIDER_STATE
    tags: tags in Consul
    model: name of the model it serves, tagged `model`
    tier: name of its tier, tagged in Consul
    restart: what happens when it exits
    failback_s: seconds that the host an instance was moved away from must be well before it goes back; none: it stays
    failback_window: when of the day it may go back, in UTC: `01:00-05:00`, also over midnight; none: at any time
    start_timeout_s: seconds from start to its first passing probe
    stop_timeout_s: seconds from SIGTERM to SIGKILL
    description: for people
    """

    command: tuple[str, ...] | None = None
    module: str | None = None
    args: tuple[str, ...] = ()
    python: str | None = None
    code: Code | None = None
    user: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    hosts: tuple[str, ...] | dict[str, OnHost | None] = ()
    labels: dict[str, str] = field(default_factory=dict)
    mode: Mode = "replicated"
    count: Annotated[int, Meta(ge=0, le=10000)] | None = None
    standbys: Annotated[int, Meta(ge=0, le=100)] = 0
    fence: Literal["deadman"] | None = None
    ports: dict[str, Port | Literal["auto"]] = field(default_factory=dict)
    probes: tuple[Probe, ...] | None = None
    needs: tuple[str | Need, ...] = ()
    resources: Resources = field(default_factory=Resources)
    state: bool = False
    tags: tuple[str, ...] = ()
    model: str = ""
    tier: str = ""
    restart: Restart = field(default_factory=Restart)
    failback_s: Annotated[float, Meta(ge=0, le=31536000)] | None = None
    failback_window: Annotated[str, Meta(pattern=WINDOW)] | None = None
    start_timeout_s: Annotated[float, Meta(gt=0, le=86400)] = 30.0
    stop_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    description: str = ""

    def need_list(self) -> tuple[Need, ...]:
        """Needs in their long form."""
        return tuple(Need(n) if isinstance(n, str) else n for n in self.needs)

    def on_host(self) -> dict[str, OnHost]:
        """Host or group name to what differs there, in the order of the file."""
        if isinstance(self.hosts, dict):
            return {name: settings or OnHost() for name, settings in self.hosts.items()}
        return {name: OnHost() for name in self.hosts}

    def instance_count(self) -> int:
        """Instances to place: replicas, or the one holder and its standbys."""
        if self.mode == "singleton":
            return 1 + self.standbys
        return max(1, len(self.hosts)) if self.count is None else self.count


class Host(Struct, frozen=True, omit_defaults=True):
    """A machine of the inventory that may run agents, as placement sees it. Quantities are totals for agents."""

    name: str
    address: str = "127.0.0.1"
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    cpu: float | None = None
    memory_mib: int | None = None
    gpus_mib: tuple[int, ...] = ()

    def answers_to(self, name: str) -> bool:
        """True if `name` is this host or a group it is in."""
        return name == self.name or name in self.groups


class Fleet(Struct, frozen=True, omit_defaults=True):
    """A validated fleet: agents by name, defaults already merged in, and the groups of the file."""

    name: str
    agents: dict[str, Agent]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
