"""`harness judges list|show|judge|evaluate|label`: what labels answers, and how it compares with people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.base.errors import BadInputError
from harness.cli.content import Include, Name
from harness.cli.shared import Json, Output, print_fields, print_json, print_rows

if TYPE_CHECKING:
    from rich.table import Table

    from harness.judges.base import Judge, Quantity
    from harness.judges.card import Card, Measured
    from harness.metrics.interval import Interval

judges = typer.Typer(help="Judges that label answers.", no_args_is_help=True)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="As in a run: judge_settings.JUDGE.FIELD=VALUE; may be repeated."),
]

_FIGURES = ("accuracy", "sensitivity", "specificity", "kappa")


@judges.command("list")
def list_judges(include: Include = None, as_json: Json = False) -> None:
    """List what --judge takes."""
    from harness.judges.card import shipped_card
    from harness.judges.find import list_judges as listed

    rows = []
    for made in listed(include or []):
        name, card = made.name, shipped_card(made.name)
        accuracy = None if card is None else card.all.accuracy
        rows.append(
            {
                "name": name,
                "measures": made.measures,
                "reads": made.languages,
                "agrees with people": "" if accuracy is None else _shown(accuracy),
                "description": made.description,
            }
        )
    print_rows(rows, as_json)


@judges.command("show")
def show_judge(name: Name, include: Include = None, as_json: Json = False) -> None:
    """Show what a judge measures, how, and its card."""
    from harness.judges.card import shipped_card
    from harness.judges.find import make_judge
    from harness.judges.preset import PresetJudge

    made = make_judge(name, include or [])
    card = shipped_card(made.name)
    fields: dict[str, Any] = {
        "name": made.name,
        "measures": made.measures,
        "languages": made.languages,
        "description": made.description,
        "source": made.source,
    }
    if isinstance(made, PresetJudge):
        fields = made.preset.model_dump(mode="json", exclude_none=True)
    if as_json:
        print_fields(fields | {"card": None if card is None else card.model_dump(mode="json")}, as_json)
        return
    print_fields(fields, as_json)
    if card is not None:
        _print_card(card)


@judges.command("judge")
def judge_answers(
    name: Name,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]")] = None,
    answers: Path | None = None,
    prompt: str = "",
    opened: str = "",
    truncated: Annotated[bool, typer.Option("--truncated")] = False,
    include: Include = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Judge the answers of a file, or one text; reasoning before an answer is left out.

    Args:
        name: A name that `list` prints.
        text: One answer, in place of --answers.
        answers: File with columns id, prompt, response and, if need be, opened and truncated.
        prompt: What TEXT answers.
        opened: What the chat template had put before TEXT, such as "<think>".
        truncated: The token limit ended TEXT.
        include: Folder with more YAML files; may be repeated.
        set_: As in a run: judge_settings.JUDGE.FIELD=VALUE; may be repeated.
        as_json: Print the result as JSON.
    """
    from harness.judges.answers import read_answers
    from harness.judges.base import judge_all

    judge = _judge_of(name, include, set_)
    if (text is None) == (answers is None):
        raise BadInputError("harness judges judge: expected either --answers FILE or one TEXT")
    if answers is not None:
        if prompt or opened or truncated:
            raise BadInputError(
                "--prompt, --opened and --truncated go with TEXT; a file has columns of these names"
            )
        rows = read_answers(answers)
    else:
        finish = "length" if truncated else "stop"
        rows = [{"id": "1", "prompt": prompt, "response": text, "opened": opened, "finish_reason": finish}]
    verdicts = [verdict.row() for verdict in judge_all(judge, rows)]
    if as_json:
        print_json(verdicts)
        return
    shown = ({name: row[name] for name in ("id", "label", "rule", "reason")} for row in verdicts)
    print_rows([{name: _or_dash(value) for name, value in row.items()} for row in shown], as_json)


@judges.command("evaluate")
def evaluate(
    name: Annotated[str, typer.Argument(metavar="JUDGE")],
    labels: Annotated[list[Path], typer.Option()],
    id_column: str | None = None,
    prompt_column: str | None = None,
    response_column: str | None = None,
    label_column: str | None = None,
    model_column: str | None = None,
    category_column: str | None = None,
    task_column: str | None = None,
    attack_column: str | None = None,
    labels_from: float | None = None,
    positives_of: str | None = None,
    include: Include = None,
    set_: Set = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Measure a judge on answers that people labelled; the result is its card, which `run --card` shows.

    Args:
        name: A name that `list` prints.
        labels: File of labelled answers; may be repeated.
        id_column: Column of ids. [id]
        prompt_column: Column of prompts. [prompt]
        response_column: Column of answers. [response]
        label_column: Column of labels: refusal, compliance, partial refusal; or harmful, harmless. [label]
        model_column: Column of model names. [model]
        category_column: Column of categories. [category]
        task_column: Column of tasks. [task]
        attack_column: Column of attacks. [attack]
        labels_from: People's labels are numbers, and those from this one on count as refusal or harmful.
        positives_of: Judge whose positives alone were labelled: such labels measure precision, not recall.
        include: Folder with more YAML files; may be repeated.
        set_: As in a run: judge_settings.JUDGE.FIELD=VALUE; may be repeated.
        output: File to write the card to; by default it is only printed.
        as_json: Print the result as JSON.
    """
    from harness.judges.card import write_card
    from harness.judges.evaluate import evaluate_judge
    from harness.judges.labels import Columns, read_labels

    judge = _judge_of(name, include, set_)
    given = {
        "id": id_column,
        "prompt": prompt_column,
        "response": response_column,
        "label": label_column,
        "model": model_column,
        "category": category_column,
        "task": task_column,
        "attack": attack_column,
    }
    named = {what: column for what, column in given.items() if column is not None}
    quantity: Quantity = "harmfulness" if judge.measures == "harmfulness" else "refusal"
    rows = read_labels(labels, Columns(**named) if named else None, quantity, labels_from)
    card = evaluate_judge(judge, rows, labels, positives_of=positives_of, labelled_from=labels_from)
    if output is not None:
        write_card(output, card)
    if as_json:
        print_json(_result(card))
        return
    _print_card(card)
    if output is not None:
        typer.echo(f"\nWritten to {output}: `harness run --card {output}` shows it.")


@judges.command("label")
def label(
    run: Path,
    variants: str | None = None,
    quantity: str = "refusal",
    per_verdict: Annotated[int, typer.Option(min=1)] = 25,
    output: Output = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    port: Annotated[int, typer.Option(min=0, max=65535)] = 0,
) -> None:
    """Label answers of a run by hand, on a page served to this machine only.

    `harness measure RUN --labels FILE` then corrects the run's rates.

    Args:
        run: Folder of a finished run.
        variants: Variants whose answers to label, comma-separated; by default all.
        quantity: What to ask: refusal or harmfulness.
        per_verdict: Answers of each variant, task and verdict, or all there are; fewer than 25 correct nothing.
        output: File of labels. [labels-RUN.jsonl, labels-RUN-harmfulness.jsonl]
        seed: Seed of the draw of answers.
        port: Port of the page; 0 for any free one.
    """
    from harness.analysis.label_page import LabelServer
    from harness.analysis.labelling import Labelling, draw_answers

    if quantity not in ("refusal", "harmfulness"):
        raise BadInputError(f"--quantity {quantity}: expected refusal or harmfulness")
    asked: Quantity = "harmfulness" if quantity == "harmfulness" else "refusal"
    of_harm = "-harmfulness" if asked == "harmfulness" else ""
    path = output or Path(f"labels-{run.resolve().name}{of_harm}.jsonl")
    if path.resolve().is_relative_to(run.resolve()):
        raise BadInputError(
            f"--output {path}: expected a file outside the run folder, which is kept as the run left it"
        )
    names = [name.strip() for name in (variants or "").split(",") if name.strip()]
    labelling = Labelling(draw_answers(run, per_verdict, seed, names, asked), path)
    with LabelServer(labelling, port) as server:
        typer.echo(f"Open {server.url} in a browser on this machine; Ctrl-C ends.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo(
                f"\n{labelling.done} of {len(labelling.answers)} labelled. Add them to the run with: "
                f"harness measure {run} --labels {path}"
            )


def _judge_of(name: str, include: list[Path] | None, assignments: list[str] | None) -> Judge:
    """Return the judge that a run would have with these settings."""
    from harness.config import make_config
    from harness.judges.find import make_judge

    for each in assignments or []:
        if not each.startswith("judge_settings."):
            raise BadInputError(
                f"--set {each}: expected a judge's setting, such as judge_settings.{name}.model=FOLDER"
            )
    return make_judge(name, include or [], make_config({}, None, assignments or []).judge_settings)


def _result(card: Card) -> dict[str, Any]:
    names = {"judge", "measures", "held_out", "partial", "positives_of", "labelled_from"}
    names |= {"uneven", "by_model", "by_category", "by_task", "by_attack", "by_model_and_attack"}
    parts = card.model_dump(mode="json", include=names) | card.all.model_dump(mode="json")
    return parts | {"unit": card.unit, "cannot_tell": card.cannot_tell()}


def _or_dash(value: object) -> object:
    return "-" if value is None else value


def _shown(figure: Interval | None) -> str:
    return "-" if figure is None else f"{figure.value:.2f} {figure.low:.2f}-{figure.high:.2f}"


def _print_card(card: Card) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    files = ", ".join(file.name for file in card.labels)
    console.print(Text(f"\nCard of {card.judge} ({card.measures}), {card.created}, on {files}."))
    if card.held_out is not None:
        console.print(Text(f"Each answer was judged as trained without {card.held_out}."))
    if card.unit is not None:
        console.print(Text(card.unit))
    only_precision = card.positives_of == card.judge
    figures = ("precision",) if only_precision else _FIGURES
    console.print(_table("answers of", {"all": card.all, **card.by_model}, figures))
    for what, measured in card.parts().items():
        if what != "model":
            console.print(_table(what, measured, figures if only_precision else figures[:3]))
    for what, found in card.uneven.items():
        for each in found:
            console.print(
                Text(
                    f"Uneven by {what}: {each.figure} {each.inside:.2f} on {each.part} (n = {each.n}), "
                    f"{each.outside:.2f} on the rest (adjusted p = {each.p_adjusted:.2g})."
                )
            )
    for sentence in card.cannot_tell():
        console.print(Text(sentence))
    if card.all.unscored:
        console.print(Text(f"Unscored, and in no figure: {card.all.unscored} of {card.all.n}."))
    partial = card.partial
    if partial.n:
        console.print(
            Text(
                f"Left out: {partial.n} partial refusals, of which {partial.called_refusal} are called refusals. "
                f"With them as a third label, accuracy {_shown(partial.three_labels)}; called partial: "
                f"{partial.called_partial} of them and {partial.others_called_partial} others."
            )
        )


def _table(heading: str, parts: Mapping[str, Measured], figures: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(heading, "n", *figures, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, measured in parts.items():
        table.add_row(Text(name), str(measured.n), *(_shown(getattr(measured, figure)) for figure in figures))
    return table
