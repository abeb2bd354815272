"""The sample agent with a real model. Run it as `python -m model_agent` with OUTRIDER_MODEL set.

It serves at once and is healthy when the model has answered its warm-up. A model that cannot be loaded is named in the
health detail, and the agent stays up to say so.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading
import time

from agent import Agent
from launcher import serve
from serving import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Agents that compute at the same time with a thread per core each spend most of it waiting for one another: with one
# thread each they do 20 times as much (measured with 8 agents on 2 cores). The fleet file may say otherwise.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
MODELS = ("langid", "magika", "minilm", "ocr", "orientation", "vad")


def begin(agent: Agent, server: Server) -> None:
    """Load in the background, so that /health answers meanwhile."""
    server.start_job(lambda: load(agent))


def load(agent: Agent) -> None:
    """Make the agent ready, or say why it never will be."""
    name = agent.settings.model
    if name not in MODELS:
        fail(agent, f"OUTRIDER_MODEL is {name!r}; there are {', '.join(MODELS)}")
        return
    began = time.perf_counter()
    try:
        for variable in ONE_THREAD:  # read once, when the libraries are imported
            os.environ.setdefault(variable, "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        model = importlib.import_module(f"models.{name}").load()
        model.infer(model.warm_up)
    except Exception as error:  # whatever it is, the health page must be able to say it
        fail(agent, f"the model {name} cannot be loaded: {error}")
        return
    turn = threading.Lock()

    def infer(document: dict[str, Any]) -> dict[str, Any]:
        with turn:  # one at a time: two would need twice the memory and end no sooner
            answer: dict[str, Any] = model.infer(document)
        return answer

    agent.infer = infer
    gc.collect()
    gc.freeze()
    agent.ready = True
    print(f"{agent.settings.instance} has loaded {name} in {time.perf_counter() - began:.2f} s", flush=True)


def fail(agent: Agent, detail: str) -> None:
    """Say it on the health page and in the log."""
    agent.detail = detail
    print(f"{agent.settings.instance} will not become healthy: {detail}", flush=True)


if __name__ == "__main__":
    os._exit(serve(begin))
