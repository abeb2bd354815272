"""What is done to a fleet. Each fault ends by itself, and leaves the hosts as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from msgspec import structs

from faults.consul_data import end_session, flap, revoke_token, wipe
from faults.means import fill_disk, squeeze, starve, step_clock
from faults.network import cut_link, garble, lose_a_third, lose_what_comes, lose_what_goes, power_off
from faults.processes import (
    freeze_consul,
    freeze_leader,
    freeze_shim,
    kill_consul,
    kill_holder,
    kill_leader,
    kill_shim,
    lose_quorum,
    lose_server,
    restart_shim,
    stop_holder,
    upgrade_shims,
)
from faults.scene import Scene

# Their first lines name them in docs/reliability.md.
FAULTS: dict[str, Callable[[Scene], None]] = {
    fault.__name__: fault
    for fault in (
        *(kill_holder, stop_holder, kill_shim, freeze_shim, restart_shim, upgrade_shims, kill_consul, freeze_consul),
        *(kill_leader, freeze_leader, lose_server, lose_quorum, wipe, revoke_token, end_session),
        *(power_off, cut_link, lose_what_comes, lose_what_goes, lose_a_third, garble),
        *(starve, squeeze, fill_disk, step_clock, flap),
    )
}
# Under these no singleton may move.
HARMLESS = frozenset({"restart_shim", "upgrade_shims", "starve", "flap"})
# Under these an agent with a dead-man ends and starts again, as documented.
SHIM_AWAY = frozenset({"restart_shim", "upgrade_shims"})


def inject(scene: Scene, *names: str) -> None:
    """One fault, or several at the same moment. A failure or Ctrl-C ends them early, and they undo what they did."""
    with ThreadPoolExecutor() as threads:
        try:
            # Dice of its own for each, or what they choose would hang on which is quicker.
            scenes = [structs.replace(scene, rng=random.Random(scene.rng.random())) for _ in names]
            for fault in [threads.submit(_one, *what) for what in zip(scenes, names, strict=True)]:
                fault.result()
        except BaseException:
            scene.over.set()
            raise


def _one(scene: Scene, name: str) -> None:
    # A host that the other fault has just turned off is hurt enough.
    with contextlib.suppress(LookupError):
        FAULTS[name](scene)
