"""The demo as a person sees it: Consul's own web page lists every agent, and all are well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from outrider.host.reports import StatusReport
from outrider.host.shim_client import ShimClient

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / ".outrider/run"
PICTURE = ROOT / "docs/images/consul-ui.png"

# Name and health of each row of the page, and a step down the list.
ROWS = """return Object.fromEntries([...document.querySelectorAll('li.linkable')].map(
    row => [row.querySelector('a').textContent.trim(), row.querySelector('dl').className]))"""
SCROLL = "document.querySelectorAll('*').forEach(element => { element.scrollTop += 300 })"

pytestmark = pytest.mark.browser


def test_the_consul_ui_shows_every_agent_passing(demo: str, browser: webdriver.Chrome) -> None:
    agents = {item.agent for item in ShimClient(RUNTIME).get("/v1/status", StatusReport).instances}
    assert len(agents) == 76
    browser.get(f"{demo}/dc1/services")
    WebDriverWait(browser, 30).until(lambda page: "78 total" in page.find_element("tag name", "h1").text)
    WebDriverWait(browser, 30).until(lambda page: page.execute_script(ROWS))
    if os.environ.get("OUTRIDER_UPDATE_PICTURES") == "1":
        browser.save_screenshot(str(PICTURE))
    health: dict[str, str] = {}

    def all_seen(page: webdriver.Chrome) -> bool:
        """The page draws only the rows in view: look, then scroll on."""
        health.update(page.execute_script(ROWS))
        page.execute_script(SCROLL)
        return agents | {"consul", "outrider-shim"} <= health.keys()

    WebDriverWait(browser, 30, poll_frequency=0.05).until(all_seen)
    assert health.keys() == agents | {"consul", "outrider-shim"}
    assert {name: state for name, state in health.items() if state != "passing"} == {}
