"""Tokens coloured by their share; figures as files, with text that tries to be more than text."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from harness.analysis.colouring import Sample, TokenTexts, boxes, cells_of, selected_share, token_texts
from harness.analysis.figures import experts
from harness.analysis.figures.page import look, save
from harness.analysis.figures.tokens import CELLS, MOST_LINES, coloured_tokens
from harness.analysis.layers import layer_profile
from harness.errors import BadInputError
from harness.models.load import DEMO_FOLDER
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


def svg_of(sample: Sample, folder: Path) -> str:
    with look():
        svg, _ = save(coloured_tokens(sample, 1.0), folder, "tokens", text_as_text=True)
    return svg.read_text(encoding="utf-8")


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


def test_boxes_wrap_between_tokens_and_break_long_ones():
    found = boxes(["abc", " de", "fghijk"], 5)
    assert [(box.line, box.column, box.token, box.text) for box in found] == [
        (0, 0, 0, "abc"),
        (1, 0, 1, " de"),
        (2, 0, 2, "fghij"),
        (3, 0, 2, "k"),
    ]


def test_a_line_end_is_shown_and_ends_its_line():
    found = boxes(["a\n", "b", "\n\n"], 10)
    assert [(box.line, box.column, box.text) for box in found] == [
        (0, 0, "a⏎"),
        (1, 0, "b"),
        (1, 1, "⏎"),
        (2, 0, "⏎"),
    ]


def test_what_hides_or_reorders_is_written_out():
    text = " ".join(box.text for box in boxes(HOSTILE, 200))
    assert "⟨U+001B⟩[31m" in text
    assert "⟨U+202E⟩gnp.exe" in text
    assert not set(text) & set("\x1b\u202e\x00\u2028\ufeff\t")


def test_wide_characters_take_two_cells_and_accents_none():
    assert cells_of("你好") == 4
    assert cells_of("e\u0301") == 1


def test_hostile_text_stays_text_in_the_svg(tmp_path):
    svg = svg_of(sample_of(HOSTILE), tmp_path)
    root = ET.fromstring(svg)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    drawn = {str(element.text) for element in root.iter() if element.tag.endswith("}text")}
    assert "</text></svg><script>alert(1)</script>" in drawn
    assert "$\\frac{1}{2}$" in drawn
    assert "你好" in drawn
    assert any("⟨U+202E⟩<b>" in text for text in drawn)
    assert not set(svg) & set("\x1b\u202e\x00\u2028\ufeff")


def test_the_figure_says_what_is_not_as_it_should_be(tmp_path):
    svg = svg_of(
        sample_of((*("x" * CELLS,) * (MOST_LINES + 5), "你"), 0, why_ids="token ids are shown"), tmp_path
    )
    assert "token ids are shown" in svg
    assert "6 tokens left out" in svg
    assert "boxes in the PNG" in svg


def test_drawing_warns_of_nothing_and_an_empty_answer_is_drawn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "0 answer tokens" in svg_of(sample_of(("a", "b", "你"), 3), tmp_path)


def test_tokens_are_read_by_the_models_tokenizer(demo):
    ids = demo.tokenizer("Hello there")["input_ids"]
    found = token_texts(ids, DEMO_FOLDER)
    assert "".join(found.texts) == demo.tokenizer.decode(ids)
    assert found.why_ids is None


def test_without_the_tokenizer_ids_are_shown_and_it_is_said(tmp_path):
    gone = token_texts([5, 17], tmp_path / "gone")
    assert gone.texts == ("5", "17")
    assert "cannot be loaded" in str(gone.why_ids)
    other = token_texts([5, 10_000_000], DEMO_FOLDER)
    assert other.texts == ("5", "10000000")
    assert "another one now" in str(other.why_ids)


@pytest.mark.parametrize("shape", [(4, 32), (48, 128)])
def test_equal_tables_give_equal_files_of_moderate_size(tmp_path, shape):
    layers, n_experts = shape
    values = np.random.default_rng(0).normal(size=layers * n_experts) / 20
    rows = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers), n_experts),
            "expert": np.tile(np.arange(n_experts), layers),
            "risk_diff": values,
        }
    )
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        with look():
            save(experts.heat_map(rows, [(1, 3), (2, 5)], "a run"), folder, "experts")
            save(experts.profile_chart(layer_profile(rows, [(1, 3)]), "a run"), folder, "layers")
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["experts.png", "experts.svg", "layers.png", "layers.svg"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
        assert (folders[0] / name).stat().st_size < 250_000


def test_an_expert_without_a_score_stays_blank(tmp_path):
    pictures = []
    for score in (np.nan, 0.0, 0.1):
        rows = pd.DataFrame({"layer": [0, 0, 1], "expert": [0, 1, 0], "risk_diff": [0.1, score, -0.1]})
        with look():
            save(experts.heat_map(rows, [], "a run"), tmp_path, "experts")
        pictures.append((tmp_path / "experts.png").read_bytes())
    assert len(set(pictures)) == 3
