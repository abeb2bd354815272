"""Whether an instance runs on this host, asked of what runs it; a shim need not be there."""

from __future__ import annotations

import subprocess

from outrider.errors import BackupError
from outrider.host.config import Config
from outrider.host.process_supervisor import found_in_environment
from outrider.host.processes import all_stats


def runs(config: Config, instance: str) -> bool:
    """True also while it starts or ends. Raises BackupError if that cannot be told."""
    if config.supervisor == "process":
        found = found_in_environment(list(all_stats()), str(config.runtime_dir))
        return any(process.instance == instance for process in found)
    unit = f"outrider-agent@{instance}.service"
    done = subprocess.run(
        ["systemctl", "show", "--property=ActiveState", "--value", unit], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackupError(f"{unit}: systemctl does not say whether it runs: {done.stderr.strip()}")
    return done.stdout.strip() not in ("inactive", "failed")
