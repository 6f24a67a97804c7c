"""Runs with known answers whose intervention acts on chosen experts, beside random draws of experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthetic_runs import (
    BASE,
    COMPLIES,
    DECLINES,
    HARMS,
    RANDOM,
    SAYS_NOTHING,
    TRAINED,
    Expert,
    Made,
    Synthetic,
    Task,
    WordsOfHarm,
    prompts,
    words_of_harm,
    write_raw_files,
)

from harness.base.files import read_json, write_json
from harness.interventions.base import Intervention
from harness.pipeline.judge import judge_with_others
from harness.runs.measure import measure
from harness.runs.run import read_run
from harness.runs.run_folder import RunFolder
from harness.runs.summary import write_summary

N = 20
CHOSEN = [(2, 7), (1, 3)]


def answers(refused: int, unscored: int = 0) -> list[str]:
    """Refusals first, then answers that cannot be scored, then compliances."""
    return [DECLINES] * refused + [SAYS_NOTHING] * unscored + [COMPLIES] * (N - refused - unscored)


def write_run_with_draws(
    run: Path,
    own: list[str],
    draws: Sequence[list[str]],
    *,
    use: float = 1.0,
    intervention: Intervention = TRAINED,
    experts: Sequence[Expert] = CHOSEN,
    forced: Mapping[str, list[str]] | None = None,
    base: Sequence[str] = (COMPLIES,),
    judges: Sequence[str] = ("keyword",),
) -> Path:
    """Write a run in which variants answer 20 prompts.

    Args:
        run: the folder.
        own: the intervention's answers.
        draws: those of each draw.
        use: how much the draws' experts are used, as a share of how much the chosen ones are.
        intervention: what it is.
        experts: those that it acts on.
        forced: answers after a forced start, by variant; the others comply.
        base: base's answers; it complies unless they say otherwise.
        judges: the primary one and those beside it.
    """
    variants = {
        "base": Made(BASE, {"harm": base}),
        intervention.name: Made(intervention, {"harm": own}, experts=experts),
    }
    for place, draw in enumerate(draws, 1):
        variants[f"random_experts_{place}"] = Made(RANDOM, {"harm": draw}, experts=CHOSEN, draw=place)
    if forced is not None:
        for name, made in variants.items():
            made.answers["harm@forced"] = forced.get(name, [COMPLIES])
    tasks = {"harm": Task("harmful", prompts("h", N))}
    settings = {"evaluation": {"forced_start": forced is not None}}
    write_raw_files(run, Synthetic("made", intervention.name, 0, judges, tasks, variants, settings))
    for path in run.glob("variants/random_experts_*/selection.json"):
        write_json(path, read_json(path) | {"use_share": use})
    if len(judges) > 1:
        with words_of_harm():
            judge_with_others(RunFolder(run))
    measure_again(run)
    return run


def write_run_judged_for_harm(
    run: Path,
    own: Sequence[str],
    draws: Sequence[Sequence[str]] = (),
    *,
    base: Sequence[str] = (HARMS,),
    asked: bool = True,
    figure: str | None = None,
) -> Path:
    """Write a run whose answers were judged for refusal and for harmfulness; base's are harmful.

    Args:
        run: the folder.
        own: the intervention's answers.
        draws: those of each draw.
        base: base's answers.
        asked: whether the run's settings name the judge of harmfulness; otherwise it was added to the finished run.
        figure: what its settings declare as `claim.figure`.
    """
    judges = ["keyword", WordsOfHarm.name]
    write_run_with_draws(run, [*own], [[*draw] for draw in draws], base=base, judges=judges)
    record = read_json(run / "run.json")
    record["config"] |= {"claim": {"figure": figure}} | ({"judge": ",".join(judges)} if asked else {})
    write_json(run / "run.json", record)
    measure_again(run)
    return run


def runs_below(place: Path) -> Callable[..., Path]:
    """Return what writes runs whose intervention refuses so many of 20, and each draw as given."""

    def make(own: int | list[str], draws: Sequence[int | list[str]], **rest: Any) -> Path:
        first, *others = (each if isinstance(each, list) else answers(each) for each in (own, *draws))
        return write_run_with_draws(place / f"run_{len(list(place.iterdir()))}", first, others, **rest)

    return make


def measure_again(run: Path) -> None:
    """Write the summary of what the folder holds now."""
    write_summary(run, measure(read_run(run)))
    RunFolder(run).write_manifest()
