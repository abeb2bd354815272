"""The running demo, and a browser to look at it with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from outrider.errors import ShimUnreachable
from outrider.host.reports import StatusReport
from outrider.host.shim_client import ShimClient

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / ".outrider/run"
# Chromium as it starts where nothing but loopback is reachable.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Address of the demo's Consul UI. A demo that was not running before is ended afterwards: it takes CPU."""
    ran = True
    try:
        ShimClient(RUNTIME).get("/v1/status", StatusReport)
    except ShimUnreachable:
        ran = False
        subprocess.run(["make", "demo"], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    ports = json.loads((ROOT / ".outrider/state/ports.json").read_text())
    yield f"http://127.0.0.1:{ports['consul_http']}/ui"
    if not ran:
        subprocess.run(["make", "down"], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium with a new profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()
