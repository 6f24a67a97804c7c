"""Takes the pictures of the report and of a leaderboard that the documentation shows.

    harness run --intervention unsafe_experts --output runs/demo
    python docs/make_screenshots.py runs/demo

Needs Chromium (Debian's chromium and chromium-driver), selenium and Pillow. The report is opened from disk.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FIGURES = Path(__file__).resolve().with_name("figures")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
)


def main() -> None:
    """Take all pictures."""
    run, *boards = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
        report = run / "report.html"
        shoot(driver, report, "report.png", height=1000)
        shoot(driver, report, "report-samples.png", height=760, anchor="samples", script=_OPEN_ONE)
        shoot(driver, report, "report-dark.png", width=400, height=800, dark=True)
        for board in boards:
            shoot(driver, board, "leaderboards.png", height=620)
        driver.quit()


# A benign sample on which variants differ, or else the first benign one: harmful ones stay folded.
_OPEN_ONE = """
const form = document.getElementById('filters');
form.elements.task.value = [...form.elements.task.options].map(o => o.value).find(v => v.includes('benign')) || '';
form.dispatchEvent(new Event('input'));
setTimeout(() => { document.querySelector('#list details').open = true; location.hash = 'samples'; }, 300);
"""


def shoot(
    driver: webdriver.Chrome,
    page: Path,
    name: str,
    width: int = 1100,
    height: int = 900,
    anchor: str = "",
    script: str = "",
    dark: bool = False,
) -> None:
    """Save one picture of a page, in few colours: small files."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(page.resolve().as_uri())
    if script:
        driver.execute_cdp_cmd("Runtime.evaluate", {"expression": script})
        driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": "new Promise(r => setTimeout(r, 700))", "awaitPromise": True}
        )
    if anchor:
        driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": f"document.getElementById('{anchor}').scrollIntoView()"}
        )
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    FIGURES.mkdir(exist_ok=True)
    picture.quantize(64).save(FIGURES / name, optimize=True)


if __name__ == "__main__":
    main()
