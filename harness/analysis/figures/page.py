"""What all figures share: matplotlib itself, their look, and how they are written."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.extras import pip_line
from harness.base.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common kind of colour vision.
HARMFUL, BENIGN, THIRD, QUIET = "#D55E00", "#0072B2", "#009E73", "#9AA0A6"
COLOURS = {"harmful": HARMFUL, "benign": BENIGN}
# More marks than this are drawn as a picture inside the SVG, which would be megabytes of paths otherwise.
MANY_MARKS = 1500

_HEADER_INCHES = 0.8
_DPI = 150


def require_matplotlib() -> None:
    """Check that matplotlib is there.

    Raises:
        BadInputError: it is not; says how to install it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise BadInputError(f"figures need matplotlib, which is not installed: {pip_line('plots')}")


@contextmanager
def look() -> Iterator[None]:
    """Give everything drawn and written inside the block the harness's look."""
    import matplotlib as mpl

    with mpl.rc_context(fname=Path(__file__).with_name("look.mplstyle")):
        yield


def page(width: float, height: float, title: str, subtitle: str) -> Figure:
    """Return an empty figure with a header.

    Args:
        width: in inches.
        height: in inches, without the header.
        title: what the figure shows.
        subtitle: of what.
    """
    from matplotlib.figure import Figure

    whole = height + _HEADER_INCHES
    figure = Figure(figsize=(width, whole), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.0, 0.0, 1.0, height / whole), w_pad=0.12, h_pad=0.08)
    figure.text(0.12 / width, 1 - 0.14 / whole, title, va="top", fontsize=12, fontweight="bold")
    figure.text(
        0.12 / width, 1 - 0.42 / whole, subtitle, va="top", fontsize=9, color="#5f6368", linespacing=1.4
    )
    return figure


def layer_axis(axes: Axes, layers: list[int]) -> None:
    """Mark the layers below a chart whose x is a layer's place; of many layers only some are numbered."""
    every = max(1, -(-len(layers) // 16))
    axes.set_xticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    axes.set_xlabel("layer")


def key(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend into the header, at the right, below the title."""
    whole = figure.get_figheight()
    figure.legend(
        handles,
        labels,
        ncols=len(labels),
        loc="upper right",
        bbox_to_anchor=(1 - 0.1 / figure.get_figwidth(), 1 - 0.4 / whole),
        borderpad=0.0,
        borderaxespad=0.0,
    )


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG, each as a whole file, and return their paths.

    Args:
        figure: drawn inside `look()`.
        folder: where to.
        name: the files' name without suffix.
    """
    written = []
    # No date in the SVG: equal values are to give equal files.
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        settings: dict[str, Any] = {"format": kind, "metadata": metadata, "dpi": _DPI}
        path = folder / f"{name}.{kind}"
        write_whole(path, partial(figure.savefig, **settings))
        written.append(path)
    return written
