"""A headless Chromium on files, and what it did beside showing them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
AXE = "HARNESS_AXE"
"""The environment variable that names axe.min.js; tox run -e browser sets it, and there nothing is skipped."""


class Browser:
    """Opens pages from disk; `problems` and `requests` are what came up since the last opening."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, dark: bool = False) -> None:
        emulate = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulate)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        address = path.resolve().as_uri()
        self.driver.get(address)
        # On a busy machine chromedriver returns from about one opening in thirty before the page is there.
        loaded = [address, "complete"]
        assert self.settled("[location.href, document.readyState]", loaded, seconds=60) == loaded

    def problems(self) -> list[str]:
        return [row["message"] for row in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return every address that was asked for, the page's own and data: left out."""
        messages = [json.loads(row["message"])["message"] for row in self.driver.get_log("performance")]
        asked = [
            m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if url != self.driver.current_url.partition("#")[0]]

    def evaluate(self, expression: str) -> Any:
        """Return a value from the page; the page's policy does not bind the developer tools."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.driver.execute_cdp_cmd("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def settled(self, expression: str, expected: Any, seconds: float = 10) -> Any:
        """Return a value once it is what is expected, or what it is when the time is up: a busy machine draws late."""
        until = time.monotonic() + seconds
        while (value := self.evaluate(expression)) != expected and time.monotonic() < until:
            time.sleep(0.1)
        return value

    def unfold(self) -> None:
        """Open every fold, and wait until the page has heard of each and is drawn again."""
        self.evaluate(
            "Promise.all([...document.querySelectorAll('details:not([open])')].map(each => new Promise(heard => {"
            " each.addEventListener('toggle', heard, {once: true}); each.open = true; })))"
            ".then(() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => drawn(0)))))"
        )

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def serious(self) -> list[str]:
        """Return what axe-core finds of impact serious or critical."""
        source = Path(os.environ.get(AXE, "/nonexistent/axe.min.js"))
        if not source.is_file():
            pytest.skip(f"no axe-core: name axe.min.js with {AXE}")
        self.evaluate(source.read_text(encoding="utf-8") + ";0")
        found = self.evaluate("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
        return [
            f"{row['id']}: {row['help']}: {row['nodes'][0]['html'][:150]}"
            for row in found
            if row["impact"] in ("serious", "critical")
        ]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if AXE not in os.environ and (chromium is None or chromedriver is None):
        pytest.skip("no chromium and chromedriver: see docs/installing.md")
    if AXE not in os.environ:
        pytest.importorskip("selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(chromedriver)))
    yield Browser(driver)
    driver.quit()
