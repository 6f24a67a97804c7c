"""One sample's tokens, coloured by the gate weight that they gave to the selected experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.colouring import Box, Sample, boxes
from harness.analysis.figures.page import page
from harness.report.words import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MONOSPACED = "DejaVu Sans Mono"
CELLS = 104
MOST_LINES = 160
"""Lines of prompt and answer each; what is longer is left out, and the figure says so."""

_CELL_INCHES, _LINE_INCHES = 0.088, 0.235
_HEADING_LINES, _FEWEST_LINES = 1.5, 7.0
# A monospaced character is about 0.6 of its size wide.
_FONT_SIZE = _CELL_INCHES * 72 / 0.602
# Not so dark at the end that black text could not be read.
_DARKEST = 0.62


def coloured_tokens(sample: Sample, most: float) -> Figure:
    """Draw a prompt and its answer, each token on the colour of its share.

    Args:
        sample: texts and shares.
        most: the share that has the darkest colour.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    cut = sample.prompt_tokens
    prompt, of_prompt = _shown(boxes(sample.texts.texts[:cut], CELLS))
    answer, of_answer = _shown(
        [box._replace(token=box.token + cut) for box in boxes(sample.texts.texts[cut:], CELLS)]
    )
    left_out = of_prompt + of_answer
    heights = [_lines(prompt), _lines(answer)]
    lines = max(sum(heights) + 2 * _HEADING_LINES + 0.3, _FEWEST_LINES)
    width, height = CELLS * _CELL_INCHES + 1.3, lines * _LINE_INCHES
    figure = page(
        width, height, f"What selected experts saw of {visible(sample.name)}", _subtitle(sample, left_out)
    )
    # A cell is to be as wide as a character, so nothing is left to matplotlib's layout.
    figure.set_layout_engine("none")
    share = height / figure.get_figheight()
    axes = figure.add_axes((0.12 / width, 0.0, CELLS * _CELL_INCHES / width, share))
    axes.set_xlim(0, CELLS)
    axes.set_ylim(lines, 0)
    axes.axis("off")
    wide = colormaps["YlOrBr"]
    colours = ListedColormap([wide(_DARKEST * i / 255) for i in range(256)])
    norm = Normalize(0, 100 * most)
    at = 0.0
    for heading, part, part_lines in zip(("prompt", "answer"), (prompt, answer), heights, strict=True):
        at += _HEADING_LINES
        axes.text(0, at - 0.35, heading, fontsize=9, fontweight="bold", color="#5f6368", va="bottom")
        _draw(axes, part, at, sample, colours, norm)
        at += part_lines
    tall = min(height - 0.3, 2.0)
    place = (1 - 0.85 / width, share - (tall + 0.2) / figure.get_figheight(), 0.12 / width)
    bar = figure.colorbar(
        ScalarMappable(norm, colours), cax=figure.add_axes((*place, tall / figure.get_figheight()))
    )
    bar.set_label("% of gate weight")
    bar.outline.set_visible(False)
    return figure


def _draw(axes: Axes, part: list[Box], top: float, sample: Sample, colours: Colormap, norm: object) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    patches = [Rectangle((box.column, top + box.line + 0.06), box.width, 0.88) for box in part]
    shades = [colours(norm(100 * sample.shares[box.token])) for box in part]  # type: ignore[operator]
    axes.add_collection(PatchCollection(patches, facecolors=shades, edgecolors="white", linewidths=0.8))
    for box in part:
        # Viewers of SVG run spaces together, so those in front are a distance and those inside do not break.
        inside = box.text.lstrip(" ")
        if inside:
            axes.text(
                box.column + len(box.text) - len(inside),
                top + box.line + 0.53,
                inside.replace(" ", "\u00a0"),
                family=[MONOSPACED, "monospace"],
                fontsize=_FONT_SIZE,
                va="center_baseline",
            )


def _shown(found: list[Box]) -> tuple[list[Box], int]:
    """Return the boxes of the first lines, and how many tokens have none of them."""
    kept = [box for box in found if box.line < MOST_LINES]
    return kept, len({box.token for box in found}) - len({box.token for box in kept})


def _lines(part: list[Box]) -> int:
    return max((box.line for box in part), default=0) + 1


def _subtitle(sample: Sample, left_out: int) -> str:
    cut = sample.prompt_tokens
    remarks = []
    if sample.texts.why_ids:
        remarks.append(sample.texts.why_ids)
    if left_out:
        remarks.append(
            f"{left_out} tokens left out, {MOST_LINES} lines of the prompt and of the answer are shown"
        )
    if _lacking(sample.texts.texts):
        remarks.append("writing that the font here lacks is boxes in the PNG and text in the SVG")
    return (
        f"share of each token's gate weight in {sample.layers} layers that went to the {sample.experts} selected "
        f"experts there · {cut} prompt tokens, {len(sample.shares) - cut} answer tokens\n{' · '.join(remarks)}"
    )


def _lacking(texts: Sequence[str]) -> set[str]:
    """Return the characters that the figure's font has no glyph for."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(MONOSPACED)).get_charmap()
    return {character for character in visible("".join(texts), lines=True) if ord(character) not in known} - {
        "\n",
        "\t",
    }
