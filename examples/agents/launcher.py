"""From the environment to a serving agent: the start and the end that all sample agents share."""

from __future__ import annotations

import gc
import os
import sys

from agent import Agent
from calls import serve_calls
from serving import Server
from settings import Settings, SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def serve(begin: Callable[[Agent, Server], None]) -> int:
    """Serve until SIGTERM. `begin` makes the agent ready, at once or with a job of its own. Returns the exit status."""
    try:
        settings = Settings(os.environ)
        agent = Agent(settings)
        server = Server(agent, settings.address, settings.ports, settings.heartbeat)
    except SettingsError as error:
        print(f"{error}\n  the shim sets it; see docs/sample-agents.md to run one by hand", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{settings.instance} cannot start: {error}", file=sys.stderr)
        return 1
    begin(agent, server)
    calls = serve_calls(agent)
    ports = ", ".join(f"{name} {port}" for name, port in server.ports.items())
    needs = ", ".join(settings.needs) or "nobody"
    print(f"{settings.instance} serves {settings.address} ({ports}); it needs {needs}", file=sys.stderr)
    gc.freeze()  # what a start leaves is never garbage: full collections need not walk it
    server.run()
    if calls:
        calls.stop()
    print(f"{settings.instance} ends", file=sys.stderr)
    return 0
