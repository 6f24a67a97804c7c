"""Takes the pictures of the report and of a leaderboard that the documentation shows.

    harness run --intervention unsafe_experts --output runs/demo
    harness report runs/ --html board.html
    python docs/make_screenshots.py runs/demo board.html
    python docs/make_screenshots.py runs/demo board.html --sizes looks    # at 390, 800 and 1,400 px, light and dark

Needs Chromium (Debian's chromium and chromium-driver), selenium and Pillow. The report is opened from disk.
"""

from __future__ import annotations

import argparse
import io
import shutil
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


SIZES = (390, 800, 1400)


def main() -> None:
    """Take the pictures of the documentation, or those to look at in every size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("boards", type=Path, nargs="*")
    parser.add_argument("--sizes", type=Path, help="a folder for whole pages in every size, light and dark")
    options = parser.parse_args()
    report = options.run / "report.html"
    with tempfile.TemporaryDirectory() as profile:
        driver = _driver(profile)
        if options.sizes is not None:
            for page in (report, *options.boards):
                for width in SIZES:
                    for scheme in ("light", "dark"):
                        path = options.sizes / f"{page.stem}-{width}-{scheme}.png"
                        shoot(driver, page, path, width=width, height=0, dark=scheme == "dark")
            driver.quit()
            return
        shoot(driver, report, FIGURES / "report.png", width=1300, height=980)
        shoot(driver, report, FIGURES / "report-samples.png", height=760, anchor="changed", script=_OPEN_ONE)
        shoot(driver, report, FIGURES / "report-dark.png", width=400, height=800, dark=True)
        for board in options.boards:
            shoot(driver, board, FIGURES / "leaderboards.png", height=900)
        driver.quit()


def _driver(profile: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))


# A benign sample on which variants differ, or else the first benign one: harmful ones stay folded.
_OPEN_ONE = """
const form = document.getElementById('filters');
form.elements.change.value = '';
form.elements.task.value = [...form.elements.task.options].map(o => o.value).find(v => v.includes('benign')) || '';
form.dispatchEvent(new Event('input'));
setTimeout(() => { document.querySelector('#list details').open = true; location.hash = 'changed'; }, 300);
"""


def shoot(
    driver: webdriver.Chrome,
    page: Path,
    path: Path,
    width: int = 1100,
    height: int = 900,
    anchor: str = "",
    script: str = "",
    dark: bool = False,
) -> None:
    """Save one picture of a page; a height of 0 is that of the whole page, in all its colours."""
    size = {"width": width, "height": height or 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(page.resolve().as_uri())
    if not height:
        size["height"] = min(driver.execute_script("return document.documentElement.scrollHeight"), 12_000)
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
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
    path.parent.mkdir(exist_ok=True, parents=True)
    if height:
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


if __name__ == "__main__":
    main()
