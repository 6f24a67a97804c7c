"""A trained variant of a run as a repository of the Hub: whether it may be pushed, and what goes along."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, nearest
from harness.base.files import sha256
from harness.base.progress import say
from harness.checkpoints.apply import apply_delta, refuse_existing, whole_folder
from harness.checkpoints.copying import README
from harness.checkpoints.delta_file import CARD, TENSORS, DeltaCard, find_delta, read_delta
from harness.checkpoints.hub import published
from harness.checkpoints.model_card import LICENCE, Pushed, front_matter, model_card
from harness.interventions.base import INTERVENTIONS
from harness.report.columns import cells_of, columns_of, comparison
from harness.report.markdown import code, grid
from harness.report.words import interval, signed, signed_number, span
from harness.runs.layout import Layout
from harness.runs.rows import BASE
from harness.runs.run import Run, read_run

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.report.columns import Cell, Column
    from harness.runs.records import Proof
    from harness.runs.summary import Summary

Files = Mapping[str, Path | str]
"""What is pushed: a file, or the text of one, by its name in the repository."""

_PROOF = "proof.json"


@dataclass(frozen=True)
class Pushable:
    """A variant that may be pushed.

    Attributes:
        run: a finished run whose files are what it wrote.
        name: of the variant.
        proof: that everything but its experts is base's.
    """

    run: Run
    name: str
    proof: Proof

    @property
    def folder(self) -> Path:
        """The folder of the variant."""
        return self.run.layout.variant(self.name).folder

    @cached_property
    def card(self) -> DeltaCard:
        """What delta.json says."""
        return read_delta(self.folder)[0]


@dataclass(frozen=True)
class Target:
    """Where and as what a variant is pushed.

    Attributes:
        repository: owner and name.
        revision: branch; None for the main one.
        merged: as a whole checkpoint in place of a delta.
        licence: where the base's card names none.
        base_model: the base's id on the Hub, where the run's model has another name.
    """

    repository: str
    revision: str | None = None
    merged: bool = False
    licence: str | None = None
    base_model: str | None = None

    @property
    def uri(self) -> str:
        """The repository as `harness models apply` takes it."""
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def find_pushable(path: Path) -> Pushable:
    """Return the variant of a folder RUN/variants/NAME.

    Raises:
        BadInputError: it is no such folder, was not trained in the run, its frozen proof failed, or the run is not
            finished or not what it wrote.
    """
    folder = path.resolve()
    run_path, name = folder.parent.parent, folder.name
    if Layout(folder).is_run():
        find_delta(path)
        raise BadInputError(f"'{path}' is a run that trained no experts: expected a trained variant")
    if folder.parent.name != "variants" or not Layout(run_path).is_run():
        raise BadInputError(f"'{path}' is no variant of a run: expected RUN/variants/NAME")
    run = read_run(run_path)
    if name not in run.variants:
        raise BadInputError(f"{run_path}: no variant '{name}', {nearest(name, run.variants)}")
    _refuse_untrained(run, name)
    run.verify()
    proof = run.proof(name)
    if proof is None:
        raise BadInputError(f"{run_path}: variant '{name}' has no frozen proof: it is not pushed")
    if not proof.frozen_unchanged:
        violation = next(iter(proof.violations), "weights differ")
        raise BadInputError(
            f"{run_path}: the frozen proof of variant '{name}' failed ({violation}): it is not pushed"
        )
    return Pushable(run, name, proof)


def _refuse_untrained(run: Run, name: str) -> None:
    """Refuse a variant whose weights the run did not train: it is not pushed in any form."""
    kind = str(run.variants[name].get("intervention", "unknown"))
    where = f"{run.path}: variant '{name}' (intervention '{kind}')"
    if kind not in INTERVENTIONS or INTERVENTIONS.get(kind).needs != "training":
        raise BadInputError(
            f"{where} was not trained: only trained experts are pushed; steered, masked and pruned models are never "
            "written"
        )
    if not run.layout.variant(name).delta.is_file():
        skipped = run.record.evaluated.get(name)
        reason = None if skipped is None else skipped.skipped
        raise BadInputError(
            f"{where} holds no {TENSORS}: " + (reason or "only experts that the run trained are pushed")
        )


@contextmanager
def files_of(pushable: Pushable, base: ModelRef | None, target: Target) -> Iterator[Files]:
    """Give the files of a variant's repository; those of a merged checkpoint may be gone after the block.

    Args:
        pushable: the variant.
        base: the run's model; None where it is not on this machine, which a delta does not need.
        target: where and as what.

    Raises:
        BadInputError: nothing says what the licence is, or the base is not the delta's.
        HarnessError: there is no room for the merged checkpoint.
    """
    front = {} if base is None else front_matter(base.path)
    licence = _licence(front, target.licence, pushable.run.model.name)
    kept = pushable.run.layout.variant(pushable.name).model
    with tempfile.TemporaryDirectory(prefix="harness-push-") as temporary:
        if not target.merged:
            files = {name: pushable.folder / name for name in (TENSORS, CARD)}
        elif kept.is_dir():
            files = _said(*published(kept))
        elif base is None:
            raise BadInputError(f"{pushable.run.path}: its model is not on this machine: --merged needs it")
        else:
            out = Path(temporary) / "model"
            apply_delta(base, pushable.folder, out)
            files = _said(*published(out))
        files[_PROOF] = pushable.folder / _PROOF
        sections = (
            _figures(pushable.run.summary, pushable.name),
            _loading(pushable, target),
            _hashes(files),
        )
        pushed = Pushed(
            _on_hub(target.base_model or pushable.run.model.name),
            licence,
            "finetune" if target.merged else "adapter",
            sections,
        )
        card = model_card(target.repository, front, pushable.card, _proof_in_words(pushable), {}, pushed)
        yield {README: card, **files}


def _said(files: dict[str, Path], left_out: Mapping[str, str]) -> dict[str, Path]:
    """Name what is not pushed to the user alone: the card would publish the names."""
    for name, reason in left_out.items():
        say(f"not pushed: {name}, {reason}")
    return files


def _licence(front: Mapping[str, Any], named: str | None, model: str) -> dict[str, Any]:
    """Return the front matter's lines on the licence: the base's own, or the one named where it has none.

    Raises:
        BadInputError: both differ, or there is neither.
    """
    own = {key: front[key] for key in LICENCE if key in front}
    if "license" in own:
        if named is not None and named != own["license"]:
            raise BadInputError(
                f"--licence {named}: the card of '{model}' says {own['license']}, which holds for what is made of it"
            )
        return own
    if named is None:
        raise BadInputError(
            f"no card of '{model}' says its licence: name it with --licence, such as apache-2.0"
        )
    return {"license": named}


def _on_hub(name: str) -> str | None:
    """Return a name that may be a model's on the Hub; others would make it refuse the card."""
    return name if name.count("/") == 1 and not name.startswith((".", "~", "/")) else None


def _proof_in_words(pushable: Pushable) -> str:
    compared = pushable.proof.tensors_compared
    count = "all tensors" if compared is None else f"{compared:,} tensors"
    return (
        f"The run wrote the merged checkpoint, read it back from disk and compared {count} with the base: those of all "
        f"other experts and layers equal the base's, byte for byte (`{_PROOF}`)."
    )


def _figures(summary: Summary, name: str) -> str:
    columns = columns_of([summary])
    both = zip(columns, cells_of(summary, BASE, columns), cells_of(summary, name, columns), strict=True)
    rows = [
        [
            code(column.task),
            column.measure,
            str(cell.n),
            _figure(base, column),
            _figure(cell, column),
            *_difference(summary, name, column),
        ]
        for column, base, cell in both
        if cell.value is not None
    ]
    headings = ["task", "figure", "n", "base", name, "difference", "verdict"]
    return "\n".join(
        (
            "## Figures",
            "",
            grid(headings, rows, 2),
            "",
            f"Run {code(summary.run_id)} of moe-safety-harness {summary.harness_version}. Shares are in percent, "
            "brackets hold 95% intervals, differences are paired over the same prompts, and verdicts are adjusted for "
            f"the number of tests. Refusal was judged by {code(summary.judge)}, whose error is not in these intervals. "
            "More refusal on these prompts is no proof of safety.",
        )
    )


def _figure(cell: Cell, column: Column) -> str:
    if cell.value is None:
        return "no value"
    ends = span(cell.low, cell.high, column.show)
    return column.show(cell.value) + (f" ({ends})" if ends else "")


def _difference(summary: Summary, name: str, column: Column) -> tuple[str, str]:
    test = comparison(summary, name, BASE, column)
    if test is None or test.difference is None:
        return "", ""
    show = signed if column.is_share else signed_number
    ends = interval(test.low, test.high, show)
    return show(test.difference) + (f" ({ends})" if ends else ""), test.verdict or ""


def _loading(pushable: Pushable, target: Target) -> str:
    base = target.base_model or pushable.run.model.name
    loaded, steps = "OUT", []
    if target.merged:
        loaded = target.repository
    else:
        steps = [
            f"These are the experts alone. They go into the checkpoint of {code(base)}, and by its hash into no other:",
            "",
            f"```sh\nharness models apply {shlex.quote(base)} {target.uri} OUT\n```",
            "",
        ]
    revision = f', revision="{target.revision}"' if target.merged and target.revision else ""
    return "\n".join(
        (
            "## Loading it",
            "",
            *steps,
            "```python",
            "from transformers import AutoModelForCausalLM",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{loaded}", dtype="auto"{revision})',
            "```",
        )
    )


def _hashes(files: Mapping[str, Path]) -> str:
    rows = [[code(name), code(sha256(path))] for name, path in sorted(files.items())]
    return f"## Files\n\n{grid(['file', 'sha256'], rows, 2)}"


def write_folder(files: Files, out: Path) -> None:
    """Write what would be pushed into a folder.

    Raises:
        BadInputError: the folder holds something.
    """
    refuse_existing(out)
    with whole_folder(out) as partial:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8", newline="\n")
            else:
                shutil.copyfile(content, path)
