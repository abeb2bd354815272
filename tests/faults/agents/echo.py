"""A replicated agent: any instance may answer."""

from __future__ import annotations

import os

import outrider

agent = outrider.Agent()


@agent.method(idempotent=True, quick=True)
def who() -> dict[str, object]:
    """Which instance answers."""
    return {"instance": agent.instance, "host": os.environ["OUTRIDER_HOST"], "epoch": 0}


agent.run()
