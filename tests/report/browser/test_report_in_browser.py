"""report.html as a person meets it, in Chromium."""

from __future__ import annotations

import json

import pytest

from harness.base.files import write_json
from harness.report.html import render_html
from harness.runs.summary import read_summary

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>document.title = 'owned'</script></script></template><!-- <img src=x onerror=alert(1)> "
    "\u202egnp.exe\u202c \u2066x\u2069 &lt;b&gt; ]]> ${1} \x1b[31m "
)
LONG = HOSTILE + "0123456789" * 10_000


@pytest.fixture
def page(small_run, tmp_path):
    """The report of a real run."""
    path = tmp_path / "report.html"
    path.write_text(render_html(small_run, read_summary(small_run)), encoding="utf-8")
    return path


@pytest.fixture
def hostile(make_summary, make_variant, make_result, give_answers, tmp_path):
    """Two tasks and two variants, with answers that try to be more than text."""
    tasks = {"advbench": make_result("advbench", 1, n=3), "demo_benign": make_result("demo_benign", 0, n=2)}
    summary = make_summary(
        {name: make_variant(tasks, trained=int(name != "base")) for name in ("base", "unsafe_experts")}
    )
    for name, label in (("base", "compliance"), ("unsafe_experts", "refusal")):
        answers = {"p0": (LONG, label), "p1": ("Same.", "compliance"), "p2": (HOSTILE, None)}
        give_answers(tmp_path, name, "advbench", answers)
        give_answers(
            tmp_path, name, "demo_benign", {"q0": ("Paris", "compliance"), "q1": ("Rome", "compliance")}
        )
    splits = {"advbench": {"categories": {"p0": "a <b>", "p1": "c"}}, "demo_benign": {}}
    write_json(tmp_path / "splits.json", {"tasks": splits})
    path = tmp_path / "report.html"
    path.write_text(render_html(tmp_path, summary), encoding="utf-8")
    return path


# Texts of one picture that lie on one another, with a pixel's grace.
OVERLAPS = """
[...document.querySelectorAll('svg')].flatMap((svg) => {
  const texts = [...svg.querySelectorAll('text')].map((each) => [each.textContent, each.getBoundingClientRect()]);
  return texts.flatMap(([a, one], place) => texts.slice(place + 1).filter(([, other]) =>
    one.left + 1 < other.right && other.left + 1 < one.right && one.top + 3 < other.bottom && other.top + 3 < one.bottom
  ).map(([b]) => `${a} | ${b}`));
})
"""
# What reaches out of the page, unless it is in a region that scrolls and says so.
TOO_WIDE = """
[...document.querySelectorAll('main *, header *')].filter((each) => {
  const region = each.closest('.scroll');
  if (region && region.scrollWidth > region.clientWidth + 1) {
    const hint = region.parentElement.querySelector(':scope > .hint');
    return each === region && !hint?.checkVisibility();
  }
  return each.getBoundingClientRect().right > innerWidth + 1;
}).map((each) => each.outerHTML.slice(0, 120))
"""
SMALL = """
[...document.querySelectorAll('svg text')].filter((text) => {
  const svg = text.ownerSVGElement;
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return parseFloat(getComputedStyle(text).fontSize) * scale < 10.99;
}).map((text) => text.textContent)
"""
FIRST_SCREEN = """
(() => {
  const seen = (element) => element && element.getBoundingClientRect().bottom <= innerHeight ? element : null;
  const number = (card, name) => Number(seen(card.querySelector(`data.${name}`))?.value);
  return {
    cards: [...document.querySelectorAll('article.card')].map((card) => ({
      question: seen(card.querySelector('h2'))?.textContent,
      answer: seen(card.querySelector('.verdict-word'))?.textContent,
      ...Object.fromEntries(['base', 'variant', 'difference', 'low', 'high'].map((name) => [name, number(card, name)])),
    })),
    choosing: seen(document.querySelector('.choosing-answer'))?.textContent,
  };
})()
"""


def choose(browser, name, value):
    browser.evaluate(
        f"(() => {{ const field = document.forms[0].elements[{json.dumps(name)}];"
        f" if (field.type === 'checkbox') field.checked = {json.dumps(value)}; else field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def expect_listed(browser, *samples):
    """Check the list; the page waits for a pause in typing before it lists what is chosen."""
    listed = "[...document.querySelectorAll('#list .sample > summary > code')].map(each => each.textContent)"
    browser.settled(listed, [*samples])
    assert [element.text for element in browser.all("#list .sample > summary > code")] == [*samples]


def expect_opened(browser, answers):
    """Check how many answers the open samples show; the page writes them once it has heard of the click."""
    shown = "document.querySelectorAll('#list .sample[open] article').length"
    assert browser.settled(shown, answers) == answers


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_opens_without_an_error_or_a_request_and_never_scrolls_sideways(browser, page, width, dark):
    browser.open(page, width, dark)
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("dark", [False, True])
def test_on_paper_everything_fits_in_dark_ink(browser, page, dark):
    browser.open(page, width=720, dark=dark)  # A4 between its margins
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": [scheme]})
    browser.unfold()
    seen = browser.evaluate(
        "({page: document.documentElement.scrollWidth,"
        " tables: [...document.querySelectorAll('table')].filter(t => t.scrollWidth > 720).map(t => t.innerText),"
        " notes: Math.min(...[...document.querySelectorAll('.card .beside')].map(n => n.clientWidth)),"
        " nav: document.querySelector('nav').clientHeight,"
        " ground: getComputedStyle(document.body).backgroundColor})"
    )
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert (seen["page"], seen["tables"], seen["nav"]) == (720, [], 0)
    assert seen["notes"] > 200
    assert seen["ground"] == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_nothing_overlaps_is_too_small_or_too_wide(browser, page, width):
    browser.open(page, width)
    browser.unfold()
    assert browser.evaluate(OVERLAPS) == []
    assert browser.evaluate(TOO_WIDE) == []
    assert browser.evaluate(SMALL) == []


def test_the_first_screen_answers_three_questions_with_the_figures_of_the_summary(browser, page, small_run):
    summary = read_summary(small_run)
    browser.open(page, 1400)
    seen = browser.evaluate(FIRST_SCREEN)
    harm, false_refusal, capability = seen["cards"]
    assert [card["question"] for card in seen["cards"]] == [
        "Did harm fall?",
        "Did false refusal rise?",
        "Did capability fall?",
    ]
    tests = [
        test
        for test in summary.comparisons
        if (test.variant, test.against) == ("unsafe_experts", "base")
        and test.metric != "harmful_rate"
        and test.verdict is not None
    ]
    for card, kind in ((harm, "harmful"), (false_refusal, "benign"), (capability, "capability")):
        rows = [test for test in tests if summary.figure(*figure_of(test)).kind == kind]
        assert [card[name] for name in ("base", "variant", "difference", "low", "high")] in [
            [row.against_value, row.value, row.difference, row.low, row.high] for row in rows
        ]
    words = {
        "harm": {"better": "yes", "worse": "no: more harm", "not decided": "not shown"},
        "cost": {"no worse": "no", "worse": "yes", "not decided": "not decided"},
    }
    assert harm["answer"] in words["harm"].values()
    assert {false_refusal["answer"], capability["answer"]} <= set(words["cost"].values())
    (claim,) = summary.claims
    assert seen["choosing"] == {"nothing claimed": "nothing is claimed", "shown": "yes"}.get(
        claim.verdict, claim.verdict
    )


def figure_of(test):
    return test.variant, test.task, test.metric, test.judge


def test_both_answers_stand_side_by_side(browser, hostile):
    browser.open(hostile, 1280)
    browser.one("#list .sample summary").click()
    expect_opened(browser, 2)
    tops = browser.evaluate(
        "[...document.querySelectorAll('#list article')].map(e => e.getBoundingClientRect().top)"
    )
    assert len(tops) == 2
    assert tops[0] == tops[1]


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(browser, page, dark):
    browser.open(page, dark=dark)
    browser.unfold()
    assert browser.serious() == []


def test_harmful_content_is_folded_until_a_click(browser, hostile):
    browser.open(hostile)
    assert not browser.all("#list pre")
    first = browser.one("#list .sample")
    assert "prompt of p0" not in first.text
    first.find_element("css selector", "summary").click()
    expect_opened(browser, 2)
    assert browser.problems() == []


def test_filters_and_search(browser, hostile):
    browser.open(hostile)
    # Where the intervention's verdicts differ from base's, those prompts are what is asked about first.
    expect_listed(browser, "p0")
    choose(browser, "change", "wrong")
    expect_listed(browser)
    choose(browser, "change", "")
    expect_listed(browser, "p0", "p1", "p2", "q0", "q1")
    choose(browser, "differ", True)
    expect_listed(browser, "p0")
    choose(browser, "differ", False)
    choose(browser, "task", "demo_benign")
    expect_listed(browser, "q0", "q1")
    choose(browser, "search", "rOmE")
    expect_listed(browser, "q1")
    choose(browser, "task", "")
    choose(browser, "search", "")
    choose(browser, "verdict", "unscored")
    expect_listed(browser, "p2")
    choose(browser, "verdict", "refusal")
    choose(browser, "variant", "base")
    expect_listed(browser)
    assert browser.one("#found").text == "0 of 5 samples"
    choose(browser, "variant", "")
    choose(browser, "verdict", "")
    choose(browser, "category", "a <b>")
    expect_listed(browser, "p0")


def test_an_answer_is_text_whatever_it_holds(browser, hostile):
    browser.open(hostile)
    browser.one("#list .sample summary").click()
    expect_opened(browser, 2)
    assert browser.driver.title == "unsafe_experts on demo"
    text = browser.evaluate("document.querySelector('#list article pre').textContent")
    assert "<script>document.title = 'owned'</script></script></template><!-- <img src=x" in text
    assert "⟨U+202E⟩gnp.exe⟨U+202C⟩ ⟨U+2066⟩x⟨U+2069⟩ &lt;b&gt;" in text
    assert len(text) > 100_000
    assert text.endswith("0123456789")
    assert browser.all("#list img") == []
    assert len(browser.all("script")) == 3
    assert browser.problems() == []


def test_by_keyboard_alone(browser, hostile):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(hostile)
    ActionChains(browser.driver).send_keys(Keys.TAB).perform()
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.evaluate("document.querySelector('#list summary').focus()")
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    expect_opened(browser, 2)
    assert len(browser.all("#list .sample[open]")) == 1


def test_a_redacted_copy_holds_no_harmful_prompt_or_answer(browser, small_run, tmp_path):
    from harness.base.files import read_jsonl

    path = tmp_path / "report.html"
    path.write_text(render_html(small_run, read_summary(small_run), redact=True), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    rows = read_jsonl(small_run / "variants/base/responses/demo_harmful.jsonl")
    assert not [row for row in rows if row["prompt"] in text or row["response"] in text]
    browser.open(path)
    browser.one("#list .sample summary").click()
    text = "document.querySelector('#list .sample[open] pre')?.textContent"
    browser.settled(text, "left out")
    assert browser.one("#list .sample[open] pre").text == "left out"
    assert browser.problems() == []


@pytest.mark.slow
def test_5000_samples_of_8_variants_are_at_most_15_mb(
    browser, make_summary, make_variant, make_result, give_answers, tmp_path
):
    names = ["base", "unsafe_experts", *(f"variant_{index}" for index in range(6))]
    tasks = {
        task: make_result(task, 0, n=1250)
        for task in ("advbench", "demo_harmful", "demo_benign", "demo_twins")
    }
    summary = make_summary({name: make_variant(tasks, trained=int(name != "base")) for name in names})
    for name in names:
        for task in tasks:
            answers = {
                f"{task}-{i}": (f"{name} answers {task} {i}. " + "word " * 100, "compliance")
                for i in range(1250)
            }
            give_answers(tmp_path, name, task, answers)
    path = tmp_path / "report.html"
    path.write_text(render_html(tmp_path, summary), encoding="utf-8")
    assert path.stat().st_size <= 15_000_000
    browser.open(path)
    # Until the script has run: it is the last thing in the page.
    milliseconds = browser.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    print(f"5,000 samples x 8 variants: {path.stat().st_size / 1e6:.1f} MB, {milliseconds:.0f} ms")
    assert browser.one("#found").text == "5,000 of 5,000 samples"
    assert len(browser.all("#list .sample")) == 50
    browser.one("#more").click()
    assert len(browser.all("#list .sample")) == 100
