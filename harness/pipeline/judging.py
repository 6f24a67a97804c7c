"""The judges beside a run's primary one: their verdicts, their cards, and what paid ones took.

All of it is read off the run folder, so a judge can be added to a finished run without its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import read_jsonl, write_json, write_jsonl
from harness.judges.base import JUDGES, Judge, Paid, judge_all, judge_record, require_measure
from harness.judges.card import find_card, write_card
from harness.runs.run_folder import RunFolder
from harness.runs.summary import Summary

# The key of run.json with the judges beside the primary one.
MORE_JUDGES = "more_judges"

_Answers = Mapping[tuple[str, str], list[dict[str, Any]]]


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
    from harness.report.write import write_measured
    from harness.runs.integrity import verify_run
    from harness.runs.run import read_run
    from harness.runs.upgrade import upgrade

    judge = JUDGES.get(name)()
    judged = read_run(run).summary
    primary = judged.judge
    if primary in judged.judges and judged.judges[primary].fingerprint != JUDGES.get(primary)().fingerprint:
        raise BadInputError(
            f"judge '{primary}' of {run} has changed since: run `harness evaluate {run}` to judge anew"
        )
    _require(judge, primary, judged.tasks())
    verify_run(run)
    folder = RunFolder(run)
    upgrade(folder)
    more = [*dict.fromkeys([*folder.state[MORE_JUDGES], *([name] if name != primary else [])])]
    folder.update({MORE_JUDGES: more})
    judge_with_others(folder)
    return write_measured(folder)


def judge_with_others(folder: RunFolder) -> None:
    """Write the verdicts of the judges that run.json lists beside the primary one, and every judge's card.

    Raises:
        BadInputError: a listed judge is unknown or measures another quantity than the tasks ask for.
    """
    state = folder.state
    kinds = {task: asked["kind"] for task, asked in state["asked"].items()}
    primary = next(iter(state["judges"]))
    others = [JUDGES.get(name)() for name in state.get(MORE_JUDGES, []) if name != primary]
    answers = {
        (name, task): read_jsonl(folder.responses(name, task))
        for name, evaluated in state["evaluated"].items()
        if evaluated["skipped"] is None
        for task in kinds
    }
    for judge in others:
        _require(judge, primary, kinds)
        _judge(folder, judge, answers, kinds)
    for judge in [JUDGES.get(primary)(), *others]:
        if isinstance(judge, Paid):
            rows = [row for rows in answers.values() for row in rows]
            write_json(folder.path / "judges" / f"{judge.name}.usage.json", judge.spent(rows))
        card = find_card(judge.name)
        if card is not None:
            write_card(folder.path / "judges", card)
    folder.update(
        {
            "judges": {primary: state["judges"][primary]}
            | {judge.name: judge_record(judge) for judge in others}
        }
    )


def _require(judge: Judge, primary: str, kinds: Mapping[str, str]) -> None:
    """Refuse a judge of what no task of the run asks for: all ask for refusal, harmful ones for harmfulness too."""
    if judge.measures == "harmfulness" and judge.name != primary and "harmful" in kinds.values():
        return
    for task in kinds:
        require_measure(judge, "refusal", task)


def _judge(folder: RunFolder, judge: Judge, answers: _Answers, kinds: Mapping[str, str]) -> None:
    for (variant, task), rows in answers.items():
        # Harm is asked of what harmful prompts were answered; it is another quantity and compared with no refusal.
        if judge.measures == "refusal" or kinds[task] == "harmful":
            path = folder.verdicts(variant, task, judge.name)
            write_jsonl(path, (verdict.row() for verdict in judge_all(judge, rows)))
