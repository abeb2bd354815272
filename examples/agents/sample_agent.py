"""The light sample agent. Run it as `python -m sample_agent`; the shim sets its environment (docs/sample-agents.md)."""

from __future__ import annotations

import os

from agent import Agent
from launcher import serve
from serving import Server


def begin(agent: Agent, _server: Server) -> None:
    """It has nothing to load."""
    agent.ready = True


if __name__ == "__main__":
    # Without the interpreter's own end: threads that still work would be waited for, and there is nothing to save.
    os._exit(serve(begin))
