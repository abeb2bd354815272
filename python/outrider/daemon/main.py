"""outriderd: the shim's command line. `outriderd --config FILE` runs it, `--check-config` only reads the file."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from outrider.daemon.api import serve_api
from outrider.daemon.notify import Notifier
from outrider.daemon.shim import Shim
from outrider.errors import OutriderError
from outrider.host.access import passable_folder
from outrider.host.config import Config, load_config
from outrider.host.process_supervisor import ProcessSupervisor
from outrider.host.supervisor import Supervisor
from outrider.host.systemd_supervisor import SystemdSupervisor

log = logging.getLogger("outrider.shim")


def main(argv: list[str] | None = None) -> int:
    """Run the shim until it is told to stop. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="outriderd", description="Outrider's shim: one per host, beside its agents.")
    parser.add_argument("--config", type=Path, default=Path("/etc/outrider/outriderd.toml"), help="configuration file")
    parser.add_argument("--check-config", action="store_true", help="read the configuration and exit")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        config = load_config(args.config)
        if args.check_config:
            return 0
        return _run(config)
    except OutriderError as error:
        print(f"outriderd: {error}", file=sys.stderr)
        return error.exit_code


def _run(config: Config) -> int:
    os.umask(0o027)
    own = [config.runtime_dir, config.state_dir, config.log_dir]
    if config.releases_dir is None:  # else it is root's, and the shim reads there
        own.append(config.releases)
    for folder in own:
        folder.mkdir(parents=True, exist_ok=True)
        if config.supervisor == "systemd":
            passable_folder(folder)  # the agents have other users
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: Config) -> int:
    """Start everything, wait for a reason to stop, stop everything."""
    systemd = Notifier()  # first, so that nothing we start has its variables
    shim = Shim(config, _supervisor(config))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shim.ended.set)
    stop_api = await serve_api(shim)
    await shim.start()
    systemd.ready()
    log.info("the shim of host %s serves fleet %s, socket %s", config.host, config.fleet, config.socket)
    # What lives now lives long: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    await shim.ended.wait()
    systemd.stopping()
    log.info("the shim ends; the instances that run go on")
    await stop_api()
    await shim.stop()
    systemd.close()
    return 0


def _supervisor(config: Config) -> Supervisor:
    if config.supervisor == "systemd":
        return SystemdSupervisor(config)
    return ProcessSupervisor(config)


if __name__ == "__main__":
    sys.exit(main())
