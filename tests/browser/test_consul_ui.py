"""The demo as a person sees it: Consul's own web page lists every agent, and all are well."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from outrider.cli.shim_client import ShimClient
from outrider.errors import ShimUnreachable
from outrider.host.reports import StatusReport

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / ".outrider/run"
PICTURE = ROOT / "docs/images/consul-ui.png"
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

# Name and health of each row of the page, and a step down the list.
ROWS = """return Object.fromEntries([...document.querySelectorAll('li.linkable')].map(
    row => [row.querySelector('a').textContent.trim(), row.querySelector('dl').className]))"""
SCROLL = "document.querySelectorAll('*').forEach(element => { element.scrollTop += 300 })"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Address of the demo's Consul UI. A demo that was not running before is ended afterwards."""
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
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


def test_the_consul_ui_shows_every_agent_passing(demo: str, browser: webdriver.Chrome) -> None:
    agents = {item.agent for item in ShimClient(RUNTIME).get("/v1/status", StatusReport).instances}
    assert len(agents) == 76
    browser.get(f"{demo}/dc1/services")
    WebDriverWait(browser, 30).until(lambda page: "ActiveLearningMonitor" in page.page_source)
    if os.environ.get("OUTRIDER_UPDATE_PICTURES"):
        browser.save_screenshot(str(PICTURE))
    health: dict[str, str] = {}

    def all_seen(page: webdriver.Chrome) -> bool:
        """The page draws only the rows in view: look, then scroll on."""
        health.update(page.execute_script(ROWS))
        page.execute_script(SCROLL)
        return agents <= health.keys()

    WebDriverWait(browser, 30, poll_frequency=0.05).until(all_seen)
    assert {name: state for name, state in health.items() if state != "passing"} == {}
