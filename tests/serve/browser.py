"""A real browser without a window: Debian's Chromium, driven by its own driver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_SECONDS = 60  # on a machine that has other things to do

# What the tile of the source `arguments[0]` shows.
TILE = "document.querySelector('[data-source=\"' + arguments[0] + '\"]')"
WORD = f"{TILE}?.querySelector('.word').textContent"
OLD = f"{TILE}.hasAttribute('data-old')"
NOTICE = f"{TILE}.querySelector('.notice').innerText"
NOTES = "document.getElementById('notes').innerText"
# What is drawn; empty before the first picture, which is smaller than the canvas before it.
CANVAS = f"{TILE}?.querySelector('canvas')"
PIXELS = f"({CANVAS}?.width === 320 ? {CANVAS}.toDataURL() : '')"


@contextmanager
def chromium(profile: Path, size: tuple[int, int] = (1440, 900)) -> Iterator[webdriver.Chrome]:
    """Start the browser; skip the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests run as root in containers
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(PATIENCE_SECONDS)
        browser.set_script_timeout(PATIENCE_SECONDS)
        yield browser
    finally:
        browser.quit()


def phone(browser: webdriver.Chrome, width: int = 390, height: int = 844) -> None:
    """Have the browser behave like a phone's."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})


def scheme(browser: webdriver.Chrome, value: str) -> None:
    """Prefer ``light`` or ``dark``."""
    feature = {"name": "prefers-color-scheme", "value": value}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wait_until(browser: webdriver.Chrome, script: str, *arguments: object) -> object:
    """Wait until the expression is true in the page; return its value."""
    wait = WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.1)
    return wait.until(lambda b: b.execute_script(f"return {script}", *arguments), script)


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the page wrote to the console as warning or error."""
    entries = browser.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] in {"WARNING", "SEVERE"}]


def hosts_asked(browser: webdriver.Chrome) -> set[str]:
    """Every host that the page has sent a request to so far."""
    hosts = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = urlsplit(message["params"]["request"]["url"])
            if url.scheme not in {"data", "blob", "chrome"}:
                hosts.add(url.netloc)
    return hosts
