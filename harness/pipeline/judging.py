"""What judges add to a summary once all answers are there: their errors, other judges' figures, agreement.

All of it is read off the run folder, so a judge can be added to a finished run without its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import read_jsonl, write_json, write_jsonl
from harness.judges.base import JUDGES, Judge, Paid, judge_all, require_measure
from harness.judges.card import Card, confusion_for, find_card, why_not_fitting, write_card
from harness.metrics.agreement import Labels, agreement, majority
from harness.metrics.corrected import corrected_rate
from harness.metrics.paired import adjust, compare_labels
from harness.metrics.rates import AnyLabel, share_of, unscored_range
from harness.pipeline.clustering import with_clusters
from harness.runs.run_folder import RunFolder
from harness.runs.summary import (
    Comparison,
    Interval,
    JudgeAgreement,
    JudgeSummary,
    Measurement,
    Summary,
    read_summary,
    write_summary,
)

RATE = "refusal_rate"
HARM_RATE = "harmful_rate"
MAJORITY = "majority"
_WANTED: dict[str, AnyLabel] = {RATE: "refusal", HARM_RATE: "harmful"}
# The key of run.json with the judges beside the primary one.
MORE_JUDGES = "more_judges"

# Label by prompt id, by variant and task.
Verdicts = dict[tuple[str, str], dict[str, Any]]


def judge_again(run: Path, name: str) -> Summary:
    """Add a judge's verdicts to a finished run, beside those it has; no answer is generated or changed.

    Of judges that the run has already, cards and corrected rates are brought up to date.

    Args:
        run: the folder of a finished run.
        name: a judge; the primary one changes no verdict.

    Raises:
        BadInputError: the folder holds no finished run or was changed; the judge is unknown or measures another
            quantity than the run's tasks ask for; or the primary judge judges otherwise than when the run was made.
    """
    from harness.report.write import write_reports
    from harness.runs.integrity import verify_run

    judge = JUDGES.get(name)()
    summary = read_summary(run)
    primary = summary.judges.get(summary.judge)
    if primary is not None and primary.fingerprint != JUDGES.get(summary.judge)().fingerprint:
        raise BadInputError(
            f"judge '{summary.judge}' of {run} has changed since: run `harness evaluate {run}` to judge anew"
        )
    _require(judge, summary)
    verify_run(run)
    folder = RunFolder(run)
    more = [*dict.fromkeys([*folder.state.get(MORE_JUDGES, []), *([name] if name != summary.judge else [])])]
    folder.describe(
        {key: value for key, value in folder.state.items() if key != "stages"} | {MORE_JUDGES: more}
    )
    summary = with_clusters(folder, with_judges(folder, _by_primary_judge(summary)))
    write_summary(run, summary)
    write_reports(run)
    folder.write_manifest()
    return summary


def with_judges(folder: RunFolder, summary: Summary) -> Summary:
    """Return a summary by the primary judge with all that is known of judges.

    Added are the figures and tests of the judges that run.json lists beside the primary one, whose verdicts are
    written too; each judge's card; corrected rates; and agreement.

    Raises:
        BadInputError: a listed judge is unknown or measures another quantity than the tasks ask for.
    """
    judges = [JUDGES.get(name)() for name in [summary.judge, *folder.state.get(MORE_JUDGES, [])]]
    judges = [judge for place, judge in enumerate(judges) if place == 0 or judge.name != summary.judge]
    for judge in judges:
        _require(judge, summary)
    answers = _answers(folder, summary)
    of_refusal = [judge for judge in judges if judge.measures == "refusal"]
    by_judge = {
        judge.name: _verdicts(folder, judge, answers, write=place > 0)
        for place, judge in enumerate(of_refusal)
    }
    # Harm is asked of what harmful prompts were answered; it is another quantity and compared with no refusal.
    harmful = {
        (name, task): rows
        for (name, task), rows in answers.items()
        if summary.variants[name].tasks[task].kind == "harmful"
    }
    of_harm = {
        judge.name: _verdicts(folder, judge, harmful, write=True)
        for judge in judges
        if judge.measures == "harmfulness"
    }
    if len(by_judge) > 2:
        together = {where: majority(_of(by_judge, where)) for where in answers}
        by_judge[MAJORITY] = {
            where: {id: {"label": label} for id, label in labels.items()}
            for where, labels in together.items()
        }
    for judge in judges:
        if isinstance(judge, Paid):
            rows_of_all = [row for rows in answers.values() for row in rows]
            write_json(folder.path / "judges" / f"{judge.name}.usage.json", judge.spent(rows_of_all))
    cards = {judge.name: find_card(judge.name) for judge in judges}
    for card in cards.values():
        if card is not None:
            write_card(folder.path / "judges", card)
    variants = {}
    for name, variant in summary.variants.items():
        rows = list(variant.measurements)
        for judge_name, verdicts in list(by_judge.items())[1:]:
            rows += [
                _rate(task, judge_name, verdicts[name, task])
                for task in variant.tasks
                if (name, task) in verdicts
            ]
        for judge_name, verdicts in of_harm.items():
            rows += [
                _rate(task, judge_name, verdicts[name, task], HARM_RATE)
                for task in variant.tasks
                if (name, task) in verdicts
            ]
        known = {judge.name: judge for judge in judges}
        variants[name] = variant.model_copy(
            update={
                "measurements": [
                    _corrected(
                        row,
                        known.get(row.judge),
                        cards.get(row.judge),
                        summary,
                        answers.get((name, row.task)),
                    )
                    if row.metric == RATE
                    else row
                    for row in rows
                ]
            }
        )
    comparisons = [*summary.comparisons]
    for judge_name, verdicts in list(by_judge.items())[1:]:
        comparisons += _comparisons(summary, judge_name, verdicts)
    for judge_name, verdicts in of_harm.items():
        comparisons += _comparisons(summary, judge_name, verdicts, HARM_RATE)
    return summary.model_copy(
        update={
            "variants": variants,
            "comparisons": comparisons,
            "judges": {judge.name: _judge_summary(judge, cards[judge.name]) for judge in judges},
            "agreement": _agreement(folder, by_judge, [judge.name for judge in of_refusal]),
        }
    )


def _require(judge: Judge, summary: Summary) -> None:
    """Refuse a judge of what no task of the run asks for: all ask for refusal, harmful ones for harmfulness too."""
    kinds = {task: row.kind for variant in summary.variants.values() for task, row in variant.tasks.items()}
    if judge.measures == "harmfulness" and judge.name != summary.judge and "harmful" in kinds.values():
        return
    for task in kinds:
        require_measure(judge, "refusal", task)


def _by_primary_judge(summary: Summary) -> Summary:
    """Return a summary without what other judges added."""
    variants = {
        name: variant.model_copy(
            update={"measurements": [row for row in variant.measurements if row.judge == summary.judge]}
        )
        for name, variant in summary.variants.items()
    }
    kept = [row for row in summary.comparisons if row.judge in (None, summary.judge)]
    return summary.model_copy(
        update={"variants": variants, "comparisons": kept, "judges": {}, "agreement": []}
    )


def _answers(folder: RunFolder, summary: Summary) -> dict[tuple[str, str], list[dict[str, Any]]]:
    return {
        (name, task): read_jsonl(folder.responses(name, task))
        for name, variant in summary.variants.items()
        for task in variant.tasks
    }


def _verdicts(
    folder: RunFolder, judge: Judge, answers: Mapping[tuple[str, str], list[dict[str, Any]]], *, write: bool
) -> Verdicts:
    """Judge all answers; the primary judge's verdicts are in the folder already."""
    found: Verdicts = {}
    for (variant, task), rows in answers.items():
        path = folder.verdicts(variant, task, judge.name)
        if write:
            write_jsonl(path, (verdict.row() for verdict in judge_all(judge, rows)))
        found[variant, task] = {row["id"]: row for row in read_jsonl(path)}
    return found


def _of(by_judge: Mapping[str, Verdicts], where: tuple[str, str]) -> dict[str, Labels]:
    return {
        name: {id: row["label"] for id, row in verdicts[where].items()}
        for name, verdicts in by_judge.items()
        if name != MAJORITY
    }


def _rate(task: str, judge: str, verdicts: Mapping[str, Any], metric: str = RATE) -> Measurement:
    rate = share_of([row["label"] for row in verdicts.values()], _WANTED[metric])
    return Measurement(
        task=task,
        metric=metric,
        judge=judge,
        value=rate.value,
        low=rate.low,
        high=rate.high,
        n=rate.n,
        scored=rate.scored,
        unscored_range=unscored_range(rate),
    )


def _corrected(
    row: Measurement,
    judge: Judge | None,
    card: Card | None,
    summary: Summary,
    answers: Sequence[Mapping[str, Any]] | None,
) -> Measurement:
    """Return a rate with its correction, or with the reason why there is none."""
    refusals = round((row.value or 0.0) * row.scored)
    ends = (refusals / row.n, (refusals + row.n - row.scored) / row.n) if row.n else None
    if judge is None:
        reason: str | None = "a majority has no card"
    elif not row.scored:
        reason = "nothing was scored"
    else:
        lengths = [len(answer["response"].split()) for answer in answers or []]
        reason = why_not_fitting(card, judge, summary.model.name, lengths)
    if reason is not None or card is None:
        return row.model_copy(update={"unscored_range": ends, "corrected": None, "not_corrected": reason})
    counts = confusion_for(card, summary.model.name)
    found = corrected_rate(
        refusals,
        row.scored,
        counts.refusal_found,
        counts.refusals,
        counts.compliance_found,
        counts.compliances,
    )
    interval = Interval(value=float(found.value), low=float(found.low), high=float(found.high))
    return row.model_copy(update={"unscored_range": ends, "corrected": interval, "not_corrected": None})


def _comparisons(summary: Summary, judge: str, verdicts: Verdicts, metric: str = RATE) -> list[Comparison]:
    """Repeat the primary judge's tests with another judge's verdicts; each judge's families are its own."""
    rows = []
    what = "" if metric == RATE else "harmfulness "
    for row in summary.comparisons:
        if row.judge != summary.judge or row.metric != RATE or (row.variant, row.task) not in verdicts:
            continue
        labels = [
            {id: verdict["label"] for id, verdict in verdicts[name, row.task].items()}
            for name in (row.variant, row.against)
        ]
        found = compare_labels(labels[0], labels[1], _WANTED[metric])._asdict()
        family = f"{what}{row.family}, by {judge}"
        changed = {**found, "judge": judge, "metric": metric, "p_adjusted": None, "family": family}
        rows.append(row.model_copy(update=changed))
    for family in dict.fromkeys(row.family for row in rows):
        places = [place for place, row in enumerate(rows) if row.family == family]
        for place, adjusted in zip(places, adjust([rows[i].p_value for i in places]), strict=True):
            rows[place] = rows[place].model_copy(update={"p_adjusted": adjusted})
    return rows


def _judge_summary(judge: Judge, card: Card | None) -> JudgeSummary:
    if card is None or card.fingerprint != judge.fingerprint:
        return JudgeSummary(measures=judge.measures, fingerprint=judge.fingerprint, labels=[], n=0)
    figures = {
        name: None if (figure := getattr(card.all, name)) is None else Interval(**figure.model_dump())
        for name in ("accuracy", "sensitivity", "specificity", "kappa")
    }
    return JudgeSummary(
        measures=judge.measures,
        fingerprint=judge.fingerprint,
        labels=[file.name for file in card.labels],
        n=card.all.n,
        **figures,
    )


def _agreement(
    folder: RunFolder, by_judge: Mapping[str, Verdicts], judges: list[str]
) -> list[JudgeAgreement]:
    """Compare the judges task by task over all variants, and write down where they differ."""
    if len(judges) < 2:
        return []
    rows, differences = [], []
    for task in dict.fromkeys(task for _, task in by_judge[judges[0]]):
        labels: dict[str, dict[str, Any]] = {name: {} for name in judges}
        for (variant, named), _ in by_judge[judges[0]].items():
            if named == task:
                for name in judges:
                    labels[name] |= {
                        f"{variant}/{id}": row["label"] for id, row in by_judge[name][variant, task].items()
                    }
        found = agreement(labels)
        rows.append(
            JudgeAgreement(
                task=task,
                judges=judges,
                n=found.n,
                kappa=found.kappa,
                alpha=found.alpha,
                differ=len(found.differ),
            )
        )
        differences += list(_differences(task, found.differ, labels))
    write_jsonl(folder.path / "judges" / "differences.jsonl", differences)
    return rows


def _differences(
    task: str, differ: Sequence[str], labels: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    for key in differ:
        variant, _, id = key.partition("/")
        yield {
            "variant": variant,
            "task": task,
            "id": id,
            "labels": {name: said[key] for name, said in labels.items()},
        }
