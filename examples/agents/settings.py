"""What the shim tells an agent in OUTRIDER_* variables."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class SettingsError(Exception):
    """The environment does not say enough to serve."""


class Settings:
    """The environment of one instance. `ports` by name; `state` and `heartbeat` are empty if there is none."""

    __slots__ = ("address", "agent", "heartbeat", "instance", "model", "needs", "ports", "state", "version")

    def __init__(self, env: Mapping[str, str]) -> None:
        """Raises SettingsError naming the variable that is wrong."""
        self.agent = env.get("OUTRIDER_AGENT", "SampleAgent")
        self.instance = env.get("OUTRIDER_INSTANCE", f"{self.agent}-1")
        self.version = env.get("OUTRIDER_VERSION", "")
        self.address = env.get("OUTRIDER_ADDRESS", "127.0.0.1")
        self.state = env.get("OUTRIDER_STATE", "")
        self.heartbeat = env.get("OUTRIDER_HEARTBEAT", "")
        self.model = env.get("OUTRIDER_MODEL", "")
        self.needs = tuple(filter(None, (name.strip() for name in env.get("OUTRIDER_NEEDS", "").split(","))))
        self.ports = _ports(env)


def _ports(env: Mapping[str, str]) -> dict[str, int]:
    texts = {"main": "OUTRIDER_PORT", "health": "OUTRIDER_PORT_HEALTH"}
    ports = {name: _port(variable, env[variable]) for name, variable in texts.items() if env.get(variable)}
    if not ports:
        raise SettingsError("neither OUTRIDER_PORT nor OUTRIDER_PORT_HEALTH is set: there is nothing to serve on")
    if ports.get("health") == ports.get("main") != 0:
        del ports["health"]  # one port serves both
    return ports


def _port(variable: str, text: str) -> int:
    # 0 lets the kernel choose, for trying an agent by hand; the choice is in the log.
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise SettingsError(f"{variable} is {text!r}: a port is a number from 0 to 65535")
    return int(text)
