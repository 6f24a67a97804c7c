"""The leaderboard page as a person meets it, in Chromium."""

from __future__ import annotations

import pytest

from harness.report.boards.boards import build_boards
from harness.report.boards.entries import LeftOut, read_entries
from harness.report.boards.show import as_html

pytestmark = pytest.mark.browser


@pytest.fixture
def page(small_run, tmp_path):
    entries, _ = read_entries([small_run])
    path = tmp_path / "board.html"
    left_out = [LeftOut(tmp_path, "<script>document.title = 'owned'</script>")]
    path.write_text(as_html(build_boards(entries), left_out), encoding="utf-8")
    return path


def column(browser, place):
    rows = browser.all("tbody tr")
    return [row.find_elements("css selector", "th, td")[place].text for row in rows]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_opens_without_an_error_or_a_request_and_never_scrolls_sideways(browser, page, width, dark):
    browser.open(page, width, dark)
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.driver.title == "Leaderboard of 1 run"
    assert browser.serious() == []


def test_a_heading_sorts_by_its_column_by_mouse_and_by_keyboard(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    place = next(i for i, cell in enumerate(browser.all("thead th")) if "demo_twins" in cell.text)
    heading = browser.all("thead th")[place]
    heading.find_element("css selector", "button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(browser, place)]
    assert values == sorted(values, reverse=True)
    heading.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(browser, place)] == sorted(values)
    first = browser.all("thead th")[0]
    first.find_element("css selector", "button").click()
    assert heading.get_attribute("aria-sort") is None
    assert first.get_attribute("aria-sort") == "descending"
    names = [name.removeprefix("☆ ").removeprefix("★ ") for name in column(browser, 0)]
    assert names == sorted(names, reverse=True)


def test_rows_are_filtered_by_words(browser, page, small_run):
    browser.open(page)
    browser.evaluate(
        "(() => { const field = document.querySelector('form.rows').elements.filter;"
        f" field.value = '{small_run.name} STEER';"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    assert [row.text.split()[0] for row in browser.all("tbody tr") if row.is_displayed()] == ["steer"]
    assert browser.one("form.rows [role=status]").text.startswith("1 of ")
