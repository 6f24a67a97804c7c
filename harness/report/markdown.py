"""report.md, made for pull requests: GitHub's Markdown, tables first."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2

from harness.base.content import content_folder
from harness.report import facts, judging, leaderboard
from harness.report.conclusion import conclude
from harness.report.headline import headline
from harness.report.leaderboard import BEST_RULE, MARKS_RULE, Cell, Column, Leaderboard
from harness.report.words import duration, percent, visible
from harness.runs.run import Run
from harness.runs.summary import Summary

# What starts markup anywhere; an underscore does only where it is not inside a word.
_MARKUP = re.compile(r"[\\`*\[\]|#~$&]|<(?! )|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


class _Ready(str):
    """Text that is Markdown already."""


def render_markdown(path: Path, summary: Summary) -> str:
    """Return the run's report as Markdown.

    Raises:
        BadInputError: a file of the run folder is there and cannot be read.
    """
    run = Run(path)
    record = run.record if run.layout.run.exists() else None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(content_folder("reports")),
        autoescape=False,  # Markdown has its own escape, given by finalize
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    timing = facts.timing(summary)
    return environment.get_template("report.md.j2").render(
        summary=summary,
        headline=headline(summary),
        sentences=conclude(summary),
        leaderboard=_leaderboard(leaderboard.build(summary)),
        rules=[MARKS_RULE, BEST_RULE],
        comparisons=_comparisons(facts.tests(summary)),
        others=_others(facts.other_measurements(summary)),
        judges=judging.judges(summary),
        rates=_rates(judging.rates(summary)),
        not_corrected=judging.not_corrected(summary),
        agreement=_agreement(judging.agreement(summary)),
        selection=_selection(summary),
        chosen=0 if summary.selection is None else len(summary.selection.experts),
        top=facts.TOP_EXPERTS,
        acted=_acted(facts.acted(run, summary)),
        drifts=_drifts(facts.drifts(summary)),
        command=_fenced(facts.command(record)),
        seeds=code(json.dumps(summary.seeds)),
        decoding=code(json.dumps(summary.decoding)),
        versions=[(name, code(version)) for name, version in facts.versions(summary, record).items()],
        run_seconds=table(["stage", "time"], timing.run),
        variant_seconds=table(
            ["variant", *timing.stages], [[code(name), *times] for name, times in timing.variants]
        ),
        total=duration(sum(summary.seconds.values())),
        code=code,
    )


def escape(text: str) -> str:
    """Return text that Markdown and GitHub show as it is, on one line."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(visible(text, lines=True).split()))


def code(text: str) -> str:
    """Return text as a code span that may stand in a table."""
    plain = " ".join(visible(text, lines=True).split())
    if "|" in plain:
        # Renderers disagree on whether a backslash before an escaped pipe ends a table's cell.
        return _Ready(f"<code>{'&#124;'.join(escape(part) for part in plain.split('|'))}</code>")
    ticks = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    space = " " if "`" in plain else ""
    return _Ready(f"{ticks}{space}{plain}{space}{ticks}" if plain else "")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are escaped unless they come from `code`."""
    if not rows:
        return _Ready("")
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return _Ready("\n".join(f"| {' | '.join(map(_finalize, line))} |" for line in lines))


def _finalize(value: object) -> str:
    return value if isinstance(value, _Ready) else escape(str(value))


def _fenced(text: str | None) -> str:
    if text is None:
        return _Ready("")
    plain = visible(text)
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    return _Ready(f"{fence}sh\n{plain}\n{fence}")


def _leaderboard(board: Leaderboard) -> str:
    headings = [
        "variant",
        *(_Ready(f"{code(column.task)}<br>{escape(column.measure)}") for column in board.columns),
    ]
    rows = []
    for row in board.rows:
        name = _Ready(f"**★ {code(row.variant)}**" if row.is_best else code(row.variant))
        if row.skipped is not None:
            rows.append([name, *["skipped"] * len(board.columns)])
        else:
            pairs = zip(row.cells, board.columns, strict=True)
            rows.append([name, *(_figure(cell, column) for cell, column in pairs)])
    return table(headings, rows)


def _figure(cell: Cell, column: Column) -> str:
    if cell.value is None:
        return "no value"
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f" ({column.show(cell.low)} to {column.show(cell.high)})"
    return f"{column.show(cell.value)}{interval}{f' {cell.mark}' if cell.mark else ''}"


def _comparisons(tests: Sequence[facts.Test]) -> str:
    headings = [
        *("variant", "against", "task", "difference", "95% interval"),
        *("adjusted p", "p", "n", "differ", "detectable", "test", "family"),
    ]
    return table(
        headings,
        [
            [
                *(code(name) for name in (test.variant, test.against, test.task)),
                _Ready(f"**{test.difference}**") if test.is_significant else test.difference,
                *(test.interval, test.p_adjusted, test.p_value, test.n, test.discordant, test.detectable),
                *(test.test, test.family),
            ]
            for test in tests
        ],
    )


def _others(rows: Sequence[facts.Other]) -> str:
    return table(
        ["variant", "task", "metric", "judge", "value", "95% interval", "corrected", "scored"],
        [
            [
                *(code(name) for name in (row.variant, row.task, row.metric, row.judge)),
                *(row.value, row.interval, row.corrected, row.scored),
            ]
            for row in rows
        ],
    )


def _rates(rows: Sequence[judging.RateRow]) -> str:
    return table(
        ["variant", "task", "judge", "raw", "corrected", "unscored either way", "scored"],
        [
            [
                *(code(name) for name in (row.variant, row.task, row.judge)),
                *(row.raw, row.corrected, row.either_way, row.scored),
            ]
            for row in rows
        ],
    )


def _agreement(rows: Sequence[judging.AgreementRow]) -> str:
    return table(
        ["task", "answers", "kappa", "alpha", "differ"],
        [[code(row.task), row.n, row.kappa, row.alpha, row.differ] for row in rows],
    )


def _selection(summary: Summary) -> str:
    if summary.selection is None:
        return _Ready("")
    rows = [
        [
            str(expert.layer),
            str(expert.expert),
            f"{expert.risk_diff:+.4f}",
            "" if expert.low is None or expert.high is None else f"{expert.low:+.4f} to {expert.high:+.4f}",
            "" if expert.q_value is None else f"{expert.q_value:.2g}",
        ]
        for expert in summary.selection.experts[: facts.TOP_EXPERTS]
    ]
    return table(["layer", "expert", "risk difference", "95% interval", "q"], rows)


def _drifts(rows: Sequence[facts.DriftRow]) -> str:
    return table(
        ["variant", "KL to base, nats a token", "95% interval", "perplexity", "over"],
        [[code(row.variant), row.kl, row.interval, row.perplexity, row.over] for row in rows],
    )


def _acted(rows: Sequence[facts.Acted]) -> str:
    return table(
        [
            "variant",
            "experts",
            "shared with the selection",
            "trained parameters",
            "of the model",
            "frozen proof",
        ],
        [
            [
                code(row.variant),
                "" if row.experts is None else str(row.experts),
                "" if row.shared is None else str(row.shared),
                f"{row.parameters:,}",
                "" if row.share is None else percent(row.share),
                row.proof,
            ]
            for row in rows
        ],
    )
