"""Verdicts on a run's answers: those of the primary judge, a stage, and those of the judges beside it.

The latter are made from the run folder alone, so a judge can be added to a finished run without its model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.base.files import read_jsonl, sha256, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.judges.base import Checked, Judge, Paid, as_read, judge_all, judge_record, require_measure
from harness.judges.card import read_card_of, shipped_card, write_card
from harness.judges.find import Settings, judge_of_run, make_judges, share
from harness.runs.layout import PATHS
from harness.runs.run_folder import RunFolder
from harness.runs.stages import stage
from harness.runs.summary import Summary

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session

# The keys of run.json with the judges beside the primary one, and with the cards that the run was told to show.
MORE_JUDGES, CARDS = "more_judges", "cards"


def judge_answers(session: Session, made: Prepared) -> None:
    """Let the primary judge read a variant's test answers."""
    for task in session.plan.test_prompts(made.variant):
        _verdicts(session, made, task, session.plan.judge)


def _verdicts_key(session: Session, made: Prepared, task: str, judge: Judge) -> str:
    answers = session.folder.layout.variant(made.name).responses(task)
    return fingerprint([judge.fingerprint, session.folder.hash_of(answers)])


@stage(
    "judge {made.name}/{task}",
    writes=str(PATHS.variant("{made.name}").verdicts("{task}", "{judge.name}")),
    key=_verdicts_key,
    # A paid judge keeps the verdicts that were paid for, and asks again for those that failed.
    again=lambda session, made, task, judge: isinstance(judge, Paid),
)
def _verdicts(session: Session, made: Prepared, task: str, judge: Judge) -> None:
    _judge(session.folder, made.name, task, judge)


def _judge(folder: RunFolder, variant: str, task: str, judge: Judge) -> None:
    files = folder.layout.variant(variant)
    verdicts = judge_all(judge, read_jsonl(files.responses(task)))
    write_jsonl(files.verdicts(task, judge.name), (verdict.row() for verdict in verdicts))


def name_card(folder: RunFolder, judge: Judge, file: Path) -> None:
    """Copy a judge's card into the run, in place of the one that comes with the judge, and record it in run.json.

    Raises:
        BadInputError: it is no card of this judge.
    """
    write_card(folder.layout.card(judge.name), read_card_of(judge, file))
    cards = folder.state.get(CARDS, {})
    folder.update({CARDS: {**cards, judge.name: {"file": file.name, "sha256": sha256(file)}}})


def judge_again(
    run: Path,
    names: Sequence[str],
    card: Path | None = None,
    include: Sequence[Path] = (),
    settings: Settings | None = None,
) -> Summary:
    """Add judges' verdicts to a finished run, beside those it has; no answer is generated or changed.

    For judges that the run has already, cards are brought up to date.

    Args:
        run: the folder of a finished run.
        names: of judges; the primary one changes no verdict.
        card: a card to show of the judge, where it is one alone.
        include: folders with more judges' YAML files.
        settings: what to change in the judges' files.

    Raises:
        BadInputError: the folder holds no finished run or was changed; a judge is unknown or measures a quantity that
            no task of the run measures; the card is not its; or the primary judge has changed since the run was made.
            Nothing was written then.
    """
    from harness.report.write import write_measured
    from harness.runs.run import read_run
    from harness.runs.upgrade import upgrade

    if not names:
        raise BadInputError("--judge: expected a judge, found none; see `harness judges list`")
    if card is not None and len(names) > 1:
        raise BadInputError(f"--card {card}: expected one judge beside it, found {len(names)}")
    judges = make_judges(names, include, settings)
    opened = read_run(run)
    opened.verify()
    summary = opened.summary
    primary = summary.judge
    folder = RunFolder(run)
    known = {judge.name: judge for judge in judges}
    first = known.get(primary) or judge_of_run(primary, folder.state.get("judges", {}))
    if primary in summary.judges and summary.judges[primary].fingerprint != first.fingerprint:
        raise BadInputError(
            f"judge '{primary}' of {run} has changed since: run `harness evaluate {run}` to judge anew"
        )
    for judge in judges:
        _require(judge, primary, summary.tasks())
        if isinstance(judge, Checked):
            judge.check()
    if card is not None:
        read_card_of(judges[0], card)
    for variant in summary.variants:
        for task in opened.answered(variant):
            opened.answers(variant, task)  # a row of another form is one line, before anything is written
    upgrade(folder)
    if card is not None:
        name_card(folder, judges[0], card)
    more = [*folder.state[MORE_JUDGES], *(name for name in known if name != primary)]
    folder.update({MORE_JUDGES: list(dict.fromkeys(more))})
    judge_with_others(folder, judges)
    return write_measured(folder)


def judge_with_others(folder: RunFolder, made: Iterable[Judge] = ()) -> None:
    """Write the verdicts of the judges that run.json lists beside the primary one, and every judge's card.

    Args:
        folder: the run's.
        made: judges that are made already, which may have their model in memory; others are made as run.json has them.

    Raises:
        BadInputError: a listed judge is unknown or measures a quantity that no task of the run measures.
    """
    state, layout = folder.state, folder.layout
    kinds = {task: asked["kind"] for task, asked in state["asked"].items()}
    variants = [name for name, evaluated in state["evaluated"].items() if evaluated["skipped"] is None]
    primary = next(iter(state["judges"]))

    def answered(variant: str, tasks: Iterable[str]) -> list[str]:
        asked = state["evaluated"][variant].get("tasks")
        return [task for task in tasks if asked is None or task in asked]

    known = {judge.name: judge for judge in made}
    first, *others = (
        known.get(name) or judge_of_run(name, state["judges"])
        for name in dict.fromkeys([primary, *state.get(MORE_JUDGES, [])])
    )
    share([first, *others])
    for judge in others:
        _require(judge, primary, kinds)
        # Harmfulness is judged on harmful tasks alone; it is another quantity, and never compared with refusal.
        tasks = [task for task, kind in kinds.items() if judge.measures == "refusal" or kind == "harmful"]
        for variant in variants:
            for task in answered(variant, tasks):
                _judge(folder, variant, task, judge)
    for judge in [first, *others]:
        if isinstance(judge, Paid):
            answers = [
                layout.variant(variant).responses(task)
                for variant in variants
                for task in answered(variant, kinds)
            ]
            rows = (as_read(row) for path in answers for row in read_jsonl(path))
            folder.write_again(layout.usage(judge.name), judge.spent(row for row in rows if row is not None))
        if judge.name in state.get(CARDS, {}):
            continue
        if (card := shipped_card(judge.name)) is not None:
            folder.write_again(layout.card(judge.name), card.model_dump(mode="json"))
        else:
            layout.card(judge.name).unlink(missing_ok=True)
    records = {judge.name: judge_record(judge) for judge in others}
    folder.update({"judges": {primary: state["judges"][primary], **records}})


def _require(judge: Judge, primary: str, kinds: Mapping[str, str]) -> None:
    """Refuse a judge whose quantity no task measures: all measure refusal, harmful ones harmfulness too."""
    if judge.measures == "harmfulness" and judge.name != primary and "harmful" in kinds.values():
        return
    for task in kinds:
        require_measure(judge, "refusal", task)
