"""The units that the roles render, as systemd itself reads them, and the polkit rule as JavaScript that parses."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

ROLES = Path(__file__).parents[3] / "roles"
VARIABLES = {
    "ansible_managed": "managed",
    "agents_user": "daemon",
    "agents_python": "/bin/true",
    "__agents_state_dir": "/var/lib/outrider",
    "__agents_log_dir": "/var/log/outrider",
    "__agents_runtime_dir": "/run/outrider",
    "__agents_local_ports_config": "/etc/outrider/local-ports.cfg",
    "__agents_local_ports_unit": "/etc/systemd/system/outrider-local-ports.service",
    "__agents_local_ports_runtime": "/run/outrider-local-ports",
    "outrider_local_ports": True,
    "outrider_backup_folder": "/var/lib",
    "outrider_backup_calendar": "*-*-* 02:00:00",
    "outrider_backup_spread_s": 3600,
    "outrider_backup_keep_daily": 7,
    "outrider_backup_keep_weekly": 4,
    "outrider_calls_tls": True,
    "__outrider_inputs": ["/etc/outrider/outriderd.toml"],
    "__outrider_config_file": "/etc/outrider/outriderd.toml",
}


def rendered(role: str, name: str) -> str:
    loader = jinja2.FileSystemLoader(ROLES / role / "templates")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined)
    return environment.get_template(f"{name}.j2").render(VARIABLES)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("agents", "outrider-agent@.service"),
        ("agents", "outrider-local-ports.service"),
        ("outrider", "outriderd.service"),
        ("outrider", "outrider-backup.service"),
        ("outrider", "outrider-backup.timer"),
    ],
)
def test_systemd_finds_nothing_wrong(role: str, name: str, tmp_path: Path) -> None:
    programs = "/opt/outrider/venv/bin/outriderd?|/usr/sbin/haproxy"
    text = re.sub(programs, "/bin/true", rendered(role, name))
    path = tmp_path / name.replace("@.", "@Echo-1.")
    path.write_text(text)
    if name.endswith(".timer"):  # what it starts
        (tmp_path / name.replace(".timer", ".service")).write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_root_opens_nothing_that_the_shims_user_could_lead_elsewhere() -> None:
    settings = re.sub(r"(?m)^#.*$", "", rendered("agents", "outrider-agent@.service"))
    assert "append:" not in settings
    assert "LoadCredential" not in settings
    assert "StateDirectory=outrider/" not in settings


def test_gpus_stay_reachable() -> None:
    for role, name in (("agents", "outrider-agent@.service"), ("outrider", "outriderd.service")):
        settings = re.sub(r"(?m)^#.*$", "", rendered(role, name))
        assert not re.search(r"PrivateDevices|ProtectClock|DevicePolicy|DeviceAllow", settings), name
