"""Tokens coloured by their share; charts as files, with text that tries to be more than text."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from harness.analysis.colouring import Sample, TokenTexts, selected_share, token_texts
from harness.base.errors import BadInputError
from harness.models.load import ModelRef, load_tokenizer
from harness.report.charts.curves import profile
from harness.report.charts.heatmap import heat_map
from harness.report.page import render_page, standalone
from harness.routing.tokens import TokenRouting

HOSTILE = (
    *(
        "</text></svg><script>alert(1)</script>",
        "\x1b[31mred",
        "\u202egnp.exe",
        " $\\frac{1}{2}$",
        "&lt;",
        "a\nb",
    ),
    *("\ufeff", "\t", "你好", "e\u0301", "\x00", "\u2028"),
)


def sample_of(texts: tuple[str, ...], prompt_tokens: int = 3, why_ids: str | None = None) -> Sample:
    shares = np.linspace(0, 1, len(texts))
    return Sample("t/\u202e<b>", TokenTexts(texts, why_ids), shares, prompt_tokens, layers=2, experts=5)


def page_of(sample: Sample) -> str:
    return render_page("tokens.html.j2", sample=sample, run="a run")


def test_the_share_is_that_of_the_gate_weight_in_layers_with_selected_experts():
    routing = TokenRouting(
        token_ids=np.array([7, 8], dtype=np.int32),
        experts=np.array([[[0, 1], [2, 3], [0, 1]], [[2, 3], [1, 2], [0, 1]]], dtype=np.uint8),
        weights=np.array(
            [[[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [1.0, 3.0], [0.5, 0.5]]], dtype=np.float16
        ),
        logits=None,
        prompt_tokens=1,
    )
    # Layers 1 and 5 of the model hold selected experts, layer 9 none.
    share = selected_share(routing, [1, 5, 9], 4, [(1, 0), (5, 2)])
    # Token 0: 0.75 + 0.5 of 2. Token 1: 0 + 3 of 1 + 4.
    assert share == pytest.approx([0.625, 0.6])


def test_a_selected_expert_that_was_not_recorded_is_refused():
    routing = TokenRouting(np.zeros(1), np.zeros((1, 1, 1), np.uint8), np.ones((1, 1, 1)), None, 1)
    with pytest.raises(BadInputError, match="expert 0 of layer 3 is selected but was not recorded"):
        selected_share(routing, [1], 4, [(3, 0)])


def test_hostile_text_stays_text_and_what_hides_or_reorders_is_written_out():
    page = page_of(sample_of(HOSTILE))
    assert "<script>" not in page
    assert "&lt;/text&gt;&lt;/svg&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "⟨U+001B⟩[31m" in page
    assert "⟨U+202E⟩&lt;b&gt;" in page
    assert "你好" in page
    assert not set(page) & set("\x1b\u202e\x00\u2028\ufeff")


def test_the_page_says_what_is_not_as_it_should_be_and_where_the_answer_begins():
    page = page_of(sample_of(("5", "17", "3"), 2, why_ids="token ids are shown"))
    assert "token ids are shown" in page
    assert "2 prompt and 1 answer tokens" in page
    assert page.index(">17<") < page.index("answer: ") < page.index(">3<")


def test_tokens_are_read_by_the_models_tokenizer(demo):
    ids = demo.tokenizer("Hello there")["input_ids"]
    found = token_texts(ids, lambda: demo.tokenizer)
    assert "".join(found.texts) == demo.tokenizer.decode(ids)
    assert found.why_ids is None


def test_without_the_tokenizer_ids_are_shown_and_it_is_said(demo, tmp_path):
    gone = token_texts([5, 17], lambda: load_tokenizer(ModelRef("gone", tmp_path / "gone")))
    assert gone.texts == ("5", "17")
    assert "cannot be loaded" in str(gone.why_ids)
    other = token_texts([5, 10_000_000], lambda: demo.tokenizer)
    assert other.texts == ("5", "10000000")
    assert "another one now" in str(other.why_ids)


@pytest.mark.parametrize("shape", [(4, 32), (48, 128)])
def test_charts_are_svg_files_of_moderate_size_that_carry_their_style(shape):
    layers, n_experts = shape
    rows = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers), n_experts),
            "expert": np.tile(np.arange(n_experts), layers),
            "risk_diff": np.random.default_rng(0).normal(size=layers * n_experts) / 20,
        }
    )
    for chart in (heat_map(rows, [(1, 3), (2, 5)], "all").svg, profile(rows, [(1, 3)]).svg):
        svg = standalone(chart)
        root = ET.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root[0].tag.endswith("style")
        assert ".chosen" in root[0].text
        assert len(svg) < 250_000


def test_an_expert_without_a_score_stays_blank():
    rows = pd.DataFrame({"layer": [0, 0, 1], "expert": [0, 1, 0], "risk_diff": [0.1, np.nan, -0.1]})
    svg = heat_map(rows, [], "all").svg
    assert svg.count("h18v18h-18z") == 2
