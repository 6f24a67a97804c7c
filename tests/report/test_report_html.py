import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from harness.base.errors import BadInputError
from harness.base.files import write_json
from harness.report.html import render_html
from harness.report.write import write_reports
from harness.runs.summary import write_summary

VOID = {"meta", "br", "rect", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, text, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def browser_data(run, summary):
    text = re.search(
        '<script type="application/json" id="data">(.*?)</script>', render_html(run, summary), re.DOTALL
    )
    return json.loads(text[1])


def test_every_section_is_filled_and_every_tag_closed(whole_run, working):
    page = Page(render_html(whole_run, working))
    assert page.open == []
    assert "unsafe_experts refuses more of demo_harmful than base: 95.0% against 5.0%" in page.text
    assert "skipped: needs 210 GiB of GPU memory, 78 GiB are there" in page.text
    assert "★: the highest mean refusal" in page.text
    assert "harness run --intervention unsafe_experts --set 'a.b=x y'" in page.text
    assert "2 experts, chosen by top_k on phase prompt." in page.text
    assert "unsafe_experts refuses more harmful prompts than base; false refusal and capability" in page.text
    # How the intervention does against a draw, over prompts, marks nothing.
    assert "random: ▲" not in page.text
    assert [task["name"] for task in browser_data(whole_run, working)["tasks"]] == [
        "demo_harmful",
        "demo_benign",
    ]
    assert '"model": "demo"' in page.text
    assert "16.5 s in all" in page.text
    # three cards, trade-off, capability, a map for each of two phases, profile, losses; the rest are legends
    assert len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 9
    assert not re.search('class="missing"', render_html(whole_run, working))


def test_summary_alone_is_enough_and_what_is_missing_is_said(bare_run, working):
    page = Page(render_html(bare_run, working))
    assert page.open == []
    for missing in (
        "this run folder has no experts.parquet",
        "no variant has a train.jsonl",
        "This run folder holds no answers.",
        "this run folder has no run.json",
        "The command is not recorded",
    ):
        assert missing in page.text
    assert "unsafe_experts refuses more of demo_harmful than base" in page.text


def test_run_with_nothing_in_it_has_a_page(make_summary, make_variant, tmp_path):
    page = Page(render_html(tmp_path, make_summary({"base": make_variant()})))
    assert page.open == []
    assert "No comparison was made in this run." in page.text
    assert "This run chose no experts." in page.text


def test_policy_allows_the_page_s_own_style_and_nothing_else(whole_run, working):
    text = render_html(whole_run, working)
    page = Page(text)
    (policy,) = [
        meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    (style,), scripts = (
        [
            f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
            for code in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        ]
        for tag in ("style", "script")
    )
    assert policy == (
        f"default-src 'none'; style-src {style}; script-src {' '.join(scripts)}; base-uri 'none'; form-action 'none'"
    )
    # The policy stands before everything it is to rule.
    assert text.index("Content-Security-Policy") < text.index("<style>")


SCRIPTS = [{"type": "application/json", "id": "data"}, {}, {}]
"""The samples and our own two scripts; a page without samples has these alone."""


def test_page_has_our_script_alone_no_request_and_no_inline_style(whole_run, working):
    page = Page(render_html(whole_run, working))
    assert page.all("script") == SCRIPTS
    for tag, attributes in page.tags:
        assert not {"src", "style", "srcset", "action", "xlink:href"} & attributes.keys(), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    style = re.search("<style>(.*?)</style>", render_html(whole_run, working), re.DOTALL)[1]
    assert not re.search(r"url\(|@import|http", style)


HOSTILE = (
    "</pre></details></template></style></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    "<!-- {{ 7 * 7 }} {% raw %} &amp; \u202emoc.live\u202c \x1b[31m\x00 \"' onclick=x"
)


@pytest.fixture
def hostile_page(whole_run, working, give_answers) -> str:
    for variant in ("base", "unsafe_experts"):
        answers = {f"id {HOSTILE}": (HOSTILE, "compliance" if variant == "base" else "refusal")}
        give_answers(whole_run, variant, "demo_harmful", answers)
    return render_html(whole_run, working)


def test_answers_are_shown_as_text(hostile_page, whole_run, working):
    page = Page(hostile_page)
    assert page.open == []
    assert page.all("script") == SCRIPTS
    assert not page.all("img")
    shown = HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\u202c", "⟨U+202C⟩")
    shown = shown.replace("\x1b", "⟨U+001B⟩").replace("\x00", "⟨U+0000⟩")
    texts = browser_data(whole_run, working)["texts"]
    assert shown in texts
    assert "{{ 7 * 7 }}" in page.text


def test_no_invisible_mark_reaches_the_page(hostile_page):
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x08\x0b-\x1f\x7f]", hostile_page)


def test_hostile_names_in_a_summary_are_shown_as_text(make_summary, make_variant, tmp_path):
    name = "<script>x</script>"
    summary = make_summary(
        {name: make_variant(skipped=f"{name} \u202e")},
        intervention=name,
        model=f"{name}\"'",
        run_id=name,
        judge=name,
    )
    # A slash cannot be in a file's name, so such a summary is refused before it is shown.
    with pytest.raises(BadInputError, match="cannot be the name of a file"):
        render_html(tmp_path, summary)
    name = "<script>x"
    summary = make_summary(
        {name: make_variant(skipped=f"{name} \u202e")},
        intervention=name,
        model=f"{name}\"'",
        run_id=name,
        judge=name,
    )
    page = Page(render_html(tmp_path, summary))
    assert page.all("script") == SCRIPTS[1:]
    assert page.open == []


def test_no_prompt_and_no_answer_stands_in_the_page_itself(whole_run, working):
    """They are data, shown by the script after a click."""
    text = render_html(whole_run, working)
    page = re.sub('<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    data = browser_data(whole_run, working)
    shown = [data["texts"][sample[1]] for task in data["tasks"] for sample in task["samples"]]
    assert len(shown) > 3
    assert not [prompt for prompt in shown if prompt in page]


def test_tables_have_captions_and_headings(whole_run, working):
    text = render_html(whole_run, working)
    page = Page(text)
    assert len(page.all("table")) == len(page.all("caption")) >= 5
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1


def test_long_selection_is_folded(working, tmp_path):
    first = working.selection.experts[0]
    experts = [first.model_copy(update={"expert": index}) for index in range(30)]
    selection = working.selection.model_copy(update={"experts": experts})
    page = Page(render_html(tmp_path, working.model_copy(update={"selection": selection})))
    assert "The other 10" in page.text


def test_same_run_gives_the_same_bytes(whole_run, working):
    assert render_html(whole_run, working) == render_html(whole_run, working)


def test_both_reports_are_written_whole(whole_run):
    write_reports(whole_run)
    assert (whole_run / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert (whole_run / "report.md").read_text(encoding="utf-8").startswith("# `unsafe_experts` on `demo`")
    assert not list(whole_run.glob(".*.tmp"))


def test_broken_file_leaves_no_half_of_a_report(whole_run):
    (whole_run / "variants/base/responses/demo_harmful.jsonl").write_text("{")
    with pytest.raises(BadInputError, match=r"demo_harmful\.jsonl"):
        write_reports(whole_run)
    assert not (whole_run / "report.md").exists()
    assert not (whole_run / "report.html").exists()


def test_file_stays_small_with_many_samples(make_summary, make_variant, make_result, give_answers, tmp_path):
    names = ["base", *(f"variant_{index}" for index in range(7))]
    result = make_result("advbench", 4, n=2_000)
    summary = make_summary({name: make_variant({"advbench": result}) for name in names})
    write_summary(tmp_path, summary)
    for name in names:
        give_answers(
            tmp_path, name, "advbench", {f"p{index}": ("word " * 60, "refusal") for index in range(2_000)}
        )
    assert len(render_html(tmp_path, summary)) < 500_000


def test_tokens_are_coloured_by_their_share_and_harmful_ones_left_out_of_a_redacted_copy(whole_run, working):
    rows = [
        {
            "task": "demo_harmful",
            "kind": "harmful",
            "id": "h",
            "prompt_tokens": 1,
            "texts": ["<b>", "no"],
            "shares": [0.0, 1.0],
        },
        {
            "task": "demo_benign",
            "kind": "benign",
            "id": "b",
            "prompt_tokens": 2,
            "texts": ["a", "\u202e"],
            "shares": [0.3, 0.79],
        },
    ]
    write_json(whole_run / "routing/token_shares.json", rows)
    text = render_html(whole_run, working)
    assert '<span class="token s0" title="0.0%">&lt;b&gt;</span>' in text
    assert '<span class="token s4" title="100.0%">no</span>' in text
    assert '<span class="token s1" title="30.0%">a</span>' in text
    assert '<span class="token s3" title="79.0%">⟨U+202E⟩</span>' in text
    shared = render_html(whole_run, working, redact=True)
    assert "&lt;b&gt;</span>" not in shared
    assert 'title="30.0%"' in shared
