"""All analyses of a run: what can be computed from its folder is, then everything is drawn and written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.agreement import PHASES_COMPARED, Agreement, agreement
from harness.analysis.balance import Balance, load_balance
from harness.analysis.coactivation import PairCounts, add_pairs, count_pairs, in_phase, pair_table
from harness.analysis.colouring import Sample, selected_share, token_texts
from harness.analysis.detector import Probed, detect
from harness.analysis.layers import layer_profile
from harness.base.errors import BadInputError, nearest
from harness.base.files import write_text, write_whole
from harness.metrics.interval import Interval
from harness.report.words import visible
from harness.routing.phases import phase_among
from harness.runs.captured import (
    KINDS,
    counts_of,
    direction_of,
    phase_of,
    records_tokens,
    selection_of,
    tokens_of,
)
from harness.runs.run import Run, read_run
from harness.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from harness.routing.counts import Phase, RoutingCounts

PAIR_TABLE = "coactivation.parquet"
# How many experts count as the top where none or all are selected.
_TOP = 10


LoadTokenizer = Callable[[Path], "PreTrainedTokenizerBase"]


@dataclass
class Analyses:
    """What was computed about a run; where a part is None, `skipped` has the reason."""

    run: Path
    phase: Phase
    layers: tuple[int, ...]
    n_experts: int
    selected: tuple[tuple[int, int], ...]
    rows: pd.DataFrame
    profile: pd.DataFrame
    balances: dict[str, Balance]
    agreement: Agreement | None = None
    detectors: list[Probed] = field(default_factory=list)
    pairs: pd.DataFrame | None = None
    samples: list[Sample] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self, figures: Sequence[Path]) -> dict[str, Any]:
        """Return what programs want to know; figures that could not be computed are null."""
        compared = self.agreement
        return {
            "run": str(self.run),
            "phase": self.phase,
            "figures": [str(path) for path in figures],
            "agreement": None
            if compared is None
            else {
                "phases": list(PHASES_COMPARED),
                "spearman": compared.spearman,
                "k": compared.k,
                "overlap": compared.overlap,
                "overlap_by_chance": compared.by_chance,
                "experts": len(compared.scores),
            },
            "load_balance": {
                "layers": list(self.layers),
                **{
                    kind: {name: _numbers(values) for name, values in balance._asdict().items()}
                    for kind, balance in self.balances.items()
                },
            },
            "detectors": [
                {
                    name: value.model_dump() if isinstance(value, Interval) else value
                    for name, value in found._asdict().items()
                }
                for found in self.detectors
            ],
            "skipped": self.skipped,
        }


def analyze(run: Path, samples: Sequence[str], phase: str | None, load_tokenizer: LoadTokenizer) -> Analyses:
    """Compute everything that a run folder allows.

    Args:
        run: the folder of a run that has selected experts.
        samples: TASK/ID of prompts whose tokens are to be coloured.
        phase: which tokens to look at; those of the selection by default.
        load_tokenizer: returns the tokenizer of a model's folder, or raises BadInputError; samples then show ids.

    Raises:
        BadInputError: the folder is no run, lacks the expert table or the routing of either kind of prompts, has no
            such sample, or did not record the single tokens that a sample needs.
    """
    source = read_run(run)
    table = source.experts()
    source.verify()
    chosen = phase_among(phase_of(source, phase), set(table["phase"]))
    rows = table[table["phase"] == chosen]
    if rows.empty:
        raise BadInputError(f"{source.layout.experts} has no phase '{chosen}'")
    selection = selection_of(source)
    selected = selection.experts if selection else ()
    counts = {kind: counts_of(source, kind) for kind in KINDS}
    harmful = counts["harmful"]
    analyses = Analyses(
        run=run,
        phase=chosen,
        layers=harmful.layers,
        n_experts=harmful.counts.shape[-1],
        selected=selected,
        rows=rows,
        profile=layer_profile(rows, selected),
        balances={kind: load_balance(counts[kind].of(chosen)[0].sum(axis=0)) for kind in KINDS},
    )
    analyses.samples = [_sample(source, name, harmful, load_tokenizer) for name in dict.fromkeys(samples)]
    if set(PHASES_COMPARED) <= set(table["phase"]):
        # An intervention on all experts has no top to speak of.
        partial = 0 < len(selected) < len(rows)
        analyses.agreement = agreement(
            table, len(selected) if partial else _TOP, lowest=partial and direction_of(source) == "safe"
        )
    else:
        analyses.skipped["agreement"] = f"the expert table has not both of {' and '.join(PHASES_COMPARED)}"
    try:
        analyses.detectors = detect(source)
    except BadInputError as error:
        analyses.skipped["detector"] = str(error)
    if records_tokens(source):
        analyses.pairs = _pairs(source, analyses)
    else:
        analyses.skipped["coactivation"] = "it needs single tokens: capture again with --record tokens"
    return analyses


def write(analyses: Analyses, output: Path) -> list[Path]:
    """Draw everything, write it into a folder and return the files' paths.

    What an earlier analysis wrote there and this one had to skip is removed: it shows other routing. Files
    inside the run folder are entered in its manifest.
    """
    from harness.analysis.figures.page import look, save

    paths = _write_charts(analyses, output)
    with look():
        paths += [path for name, figure in _figures(analyses) for path in save(figure, output, name)]
    paths += _write_samples(analyses, output)
    if analyses.pairs is not None:
        table, path = analyses.pairs, output / PAIR_TABLE
        write_whole(path, lambda temporary: table.to_parquet(temporary, index=False))
        paths.append(path)
    stale = [output / f"{name}{suffix}" for name in analyses.skipped for suffix in (".svg", ".png")]
    for path in [*stale, *([output / PAIR_TABLE] if analyses.pairs is None else [])]:
        path.unlink(missing_ok=True)
    if output.resolve().is_relative_to(analyses.run.resolve()):
        RunFolder(analyses.run).write_manifest()
    return paths


def _figures(analyses: Analyses) -> Any:
    """Yield name and figure, one drawn after the other."""
    from harness.analysis.figures import agreement, balance, coactivation

    run, selected = f"run {visible(analyses.run.resolve().name)}", analyses.selected
    chosen = f"{len(selected)} selected experts" if selected else "no selection"
    about = f"{run} · {analyses.phase} phase · {chosen}"
    yield "load_balance", balance.balance_chart(analyses.balances, analyses.layers, analyses.n_experts, about)
    if analyses.agreement is not None:
        about = f"{run} · {chosen}{' ringed' if selected else ''}"
        yield "agreement", agreement.scatter(analyses.agreement, selected, about)
    if analyses.pairs is not None:
        about = f"{run} · {analyses.phase} phase{' · both selected: bold' if selected else ''}"
        yield "coactivation", coactivation.pairs_chart(analyses.pairs, selected, about)


def _write_charts(analyses: Analyses, output: Path) -> list[Path]:
    """Write the charts that the report shows too, and the numbers behind them."""
    from harness.report.charts.curves import profile
    from harness.report.charts.heatmap import heat_map
    from harness.report.page import standalone

    charts = {
        "experts": heat_map(analyses.rows, analyses.selected, analyses.phase).svg,
        "layers": layers.svg if (layers := profile(analyses.rows, analyses.selected)) else None,
    }
    paths = []
    for name, chart in charts.items():
        if chart is not None:
            paths.append(output / f"{name}.svg")
            write_text(paths[-1], standalone(chart))
    paths.append(output / "layers.csv")
    write_text(paths[-1], analyses.profile.to_csv(index=False))
    return paths


def _write_samples(analyses: Analyses, output: Path) -> list[Path]:
    from harness.report.page import render_page

    paths = []
    for sample in analyses.samples:
        folder, name = place_of(sample.name)
        paths.append(output / folder / f"{name}.html")
        write_text(paths[-1], render_page("tokens.html.j2", sample=sample, run=analyses.run.resolve().name))
    return paths


def place_of(sample: str) -> tuple[str, str]:
    """Return the folder and the file name of a sample's page.

    Ids are data and may hold what no file name should; two ids do not share a file for what was replaced in them.

    Examples:
        >>> place_of("demo_harmful/demo-harmful-033")
        ('tokens/demo_harmful', 'demo-harmful-033')
        >>> place_of("mine/../x")
        ('tokens/mine', '_._x-fb8aaa')
    """
    task, _, name = sample.partition("/")
    plain = re.sub(r"[^A-Za-z0-9._-]|^\.", "_", name)[:80]
    mark = "" if plain == name else f"-{hashlib.sha256(sample.encode()).hexdigest()[:6]}"
    return f"tokens/{task}", plain + mark


def _pairs(source: Run, analyses: Analyses) -> pd.DataFrame:
    def group(kind: Any) -> PairCounts:
        return add_pairs(
            count_pairs(tokens.experts[in_phase(tokens, analyses.phase)], analyses.n_experts)
            for tokens in tokens_of(source, kind)
        )

    return pair_table(analyses.layers, group("harmful"), group("benign"))


def _sample(source: Run, name: str, counts: RoutingCounts, load_tokenizer: LoadTokenizer) -> Sample:
    """Read one sample's tokens.

    Raises:
        BadInputError: it is not among the captured prompts, or single tokens were not recorded.
    """
    selection = selection_of(source)
    if selection is None:
        raise BadInputError(
            f"--sample {name}: the run's intervention acts on no selected experts to colour tokens by"
        )
    task, slash, prompt = name.partition("/")
    captured = source.captured
    if not slash or task not in captured:
        raise BadInputError(
            f"--sample {name}: expected TASK/ID with a captured task, {nearest(task, captured)}"
        )
    ids = source.routing(task).ids
    if prompt not in ids:
        raise BadInputError(f"--sample {name}: no such prompt was captured of {task}: {_near(prompt, ids)}")
    routing = source.tokens(task).of(prompt)
    experts = selection.experts
    return Sample(
        name=name,
        texts=token_texts(routing.token_ids.tolist(), lambda: load_tokenizer(Path(source.model.path))),
        shares=selected_share(routing, counts.layers, counts.counts.shape[-1], experts),
        prompt_tokens=routing.prompt_tokens,
        layers=len({layer for layer, _ in experts}),
        experts=len(experts),
    )


def _near(name: str, ids: Sequence[str]) -> str:
    """Offer the nearest id, or a few of them: there may be thousands."""
    offered = nearest(name, ids)
    return offered if offered.startswith("did") else f"such as {', '.join(sorted(ids)[:3])}"


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
