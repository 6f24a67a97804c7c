"""How far a variant's routes have moved from base's on the same tokens, over all layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.metrics.route_drift import KINDS, PHASES
from harness.metrics.route_drift import Kind as Asked
from harness.metrics.route_drift import Phase as Tokens
from harness.runs.metric import Better, Metric
from harness.runs.rows import Kind, Measurement, on_text

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence

_TOKENS = {"prompt": "{} prompts", "answer": "answers to {} prompts"}


@dataclass(eq=False)
class RouteFigure(Metric):
    """One figure of routes.json, of one kind of prompt and one phase.

    Attributes:
        figure: kept (share of top-k slots whose expert is kept) or kl (of the router's distribution).
        kind: of the prompts.
        phase: which tokens.
    """

    figure: Literal["kept", "kl"]
    kind: Asked
    phase: Tokens
    of_a_task = False

    def __post_init__(self) -> None:
        self.name = f"{'routes_kept' if self.figure == 'kept' else 'router_kl'}_{self.kind}_{self.phase}"
        self.unit = "share" if self.figure == "kept" else "number"

    def label(self, kind: Kind) -> str:
        """Return what a heading calls it."""
        what = "routes kept" if self.figure == "kept" else "router's KL"
        return f"{what}, {_TOKENS[self.phase].format(self.kind)}"

    def better(self, row: Measurement) -> Better | None:
        """Return None: an intervention may well work by moving routes."""
        return None

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield the figure over all layers, where routes were compared."""
        routes = run.routes(variant)
        row = None if routes is None else routes.overall(self.kind, self.phase)
        if row is None:
            return
        figure = [getattr(row, f"{self.figure}{end}") for end in ("", "_low", "_high")]
        if figure[0] is not None:
            yield on_text(variant, self.name, row.prompts, row.tokens, *figure)


ROUTE_FIGURES = tuple(
    RouteFigure(figure, kind, phase) for figure in ("kept", "kl") for kind in KINDS for phase in PHASES
)
