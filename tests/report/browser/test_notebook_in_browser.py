"""What a notebook shows of a run, in Chromium, beside a notebook's own style."""

from __future__ import annotations

import json

import pytest

import harness

pytestmark = pytest.mark.browser

# A dark notebook on a machine that prefers light pages, and the reverse.
NOTEBOOK = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Notebook</title>
<style>
body {{ background: {ground}; color: {ink}; margin: 0; font: 13px Arial; }}
.out h2 {{ font-size: 30px; color: {ink}; }} .out p {{ color: {ink}; }} .out table {{ width: 9px; }}
</style>
<main><h1 id="own">Mine</h1><div class="out">{run}</div></main></html>"""
LOOK = """(() => {
  const look = e => { const s = getComputedStyle(e); return [s.color, s.backgroundColor, s.fontSize]; };
  return ['body', '#own', '.harness-run', '.harness-run .headline', '.harness-run .card h2', '.harness-run dd']
    .map(name => look(document.querySelector(name)));
})()"""


@pytest.fixture
def shown(browser, small_run, tmp_path):
    run = harness.open(small_run)

    def show(width: int, dark: bool, is_dark_page: bool) -> harness.Run:
        ground, ink = ("#111", "#eee") if is_dark_page else ("#fff", "#222")
        page = tmp_path / "notebook.html"
        page.write_text(NOTEBOOK.format(ground=ground, ink=ink, run=run._repr_html_()), encoding="utf-8")
        browser.open(page, width, dark)
        return run

    return show


def brightness(colour: str) -> float:
    return sum(map(float, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 765


@pytest.mark.parametrize("is_dark_page", [False, True])
@pytest.mark.parametrize("dark", [False, True])
def test_it_brings_its_own_ground_and_ink_and_changes_nothing_around_it(browser, shown, dark, is_dark_page):
    shown(900, dark, is_dark_page)
    body, own, frame, *texts = browser.evaluate(LOOK)
    assert body[1] == ("rgb(17, 17, 17)" if is_dark_page else "rgb(255, 255, 255)")
    assert own[2] == "26px"
    assert (brightness(frame[1]) < 0.2) == dark
    for colour, _, _ in texts:
        assert abs(brightness(colour) - brightness(frame[1])) > 0.5
    assert texts[1][2] == "16px"


@pytest.mark.parametrize("width", [420, 900, 1400])
def test_it_shows_the_cards_numbers_and_asks_for_nothing(browser, shown, width):
    run = shown(width, False, False)
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    values = [row.get_attribute("value") for row in browser.all(".card .variant")]
    assert values == [json.dumps(card.variant) for card in run.cards if card.column]
    assert browser.one(".headline").text == run.headline
    assert browser.serious() == []
