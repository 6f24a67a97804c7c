"""Where everything in a run folder is: each path is named here and nowhere else.

Nothing is read or checked. Names of variants, tasks and judges may come from someone else's files, so a name that
would lead out of the folder is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import BadInputError

SUMMARY = "summary.json"
MANIFEST = "manifest.json"
_DEPTH = 3


class _Below:
    """A path below the folder of a layout."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layout: Layout | VariantLayout, owner: object) -> Path:
        return layout.folder / self._name


@dataclass(frozen=True, slots=True)
class VariantLayout:
    """The paths of one variant.

    Args:
        folder: RUN/variants/NAME.
    """

    folder: Path

    selection = _Below("selection.json")
    """The experts that it acts on."""
    delta = _Below("delta.safetensors")
    """The trained experts' new values."""
    delta_card = _Below("delta.json")
    """How they came about."""
    adapter = _Below("adapter")
    """The folder of the trained adapter, as PEFT writes it."""
    adapter_card = _Below("adapter.json")
    """How it came about."""
    training = _Below("train.jsonl")
    """Loss, learning rate and gradient norm of each step."""
    checkpoint = _Below("checkpoint.partial")
    """The state of a training that is not finished."""
    job = _Below("job.partial")
    """What the processes of a training share while it lasts."""
    proof = _Below("proof.json")
    """The frozen proof."""
    model = _Below("model")
    """The whole checkpoint, where it is kept."""
    served = _Below("served.json")
    """How the checkpoint that an engine served compares with the model in memory."""
    drift = _Below("drift.json")
    """How far the variant is from base on benign text."""
    routes = _Below("routes.json")
    """How far its routes are from base's on the same tokens."""
    carry = _Below("carry.json")
    """Refusal while its trained experts are put back to base one after another."""
    carry_answers = _Below("carry.jsonl")
    """The answers of each of these states."""
    capability = _Below("capability.json")
    """lm-eval's results with a score for each item."""
    imported = _Below("capability.imported.json")
    """The same of tasks that lm-eval was run on elsewhere (`harness import`), and where they are from."""

    def responses(self, task: str) -> Path:
        """Its answers to a task."""
        return self.folder / "responses" / f"{_safe(task)}.jsonl"

    def verdicts(self, task: str, judge: str) -> Path:
        """A judge's verdicts on them."""
        return self.folder / "verdicts" / f"{_safe(task)}.{_safe(judge)}.jsonl"

    def answered(self) -> list[str]:
        """Return the tasks that have a file of answers, sorted."""
        return sorted(path.stem for path in self.folder.glob("responses/[!.]*.jsonl"))

    def judges(self, task: str) -> list[str]:
        """Return the judges that have a file of verdicts on a task's answers, sorted."""
        start = f"{task}."
        names = (path.stem for path in self.folder.glob("verdicts/[!.]*.jsonl"))
        return sorted(name.removeprefix(start) for name in names if name.startswith(start))


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a run folder.

    Args:
        folder: the run folder.
    """

    folder: Path

    run = _Below("run.json")
    """Configuration, specifications, seeds, versions and stages."""
    summary = _Below(SUMMARY)
    """What reports, gates and other programs read."""
    manifest = _Below(MANIFEST)
    """Size and hash of every other file."""
    splits = _Below("splits.json")
    """The ids of the prompts of each task and role."""
    experts = _Below("experts.parquet")
    """The expert table."""
    html = _Below("report.html")
    """The report as a page."""
    redacted = _Below("report-redacted.html")
    """The same without harmful prompts and answers."""
    markdown = _Below("report.md")
    """The report as Markdown."""
    tables = _Below("tables")
    """The folder of the report's tables as CSV and LaTeX."""
    figures = _Below("figures")
    """The folder of what `harness analyze` draws."""
    judges = _Below("judges")
    """The folder of judges' cards."""
    labels = _Below("judges/labels.jsonl")
    """People's labels of the run's own answers: refusal or compliance."""
    labels_of_harm = _Below("judges/labels.harmfulness.jsonl")
    """The same: harmful or harmless."""
    differences = _Below("judges/differences.jsonl")
    """Every answer on which judges differ."""
    token_shares = _Below("routing/token_shares.json")
    """For a few prompts, each token's share of gate weight to the selected experts."""
    examples = _Below("training/examples.jsonl")
    """What trained variants learn from."""
    phrasings = _Below("training/phrasings.json")
    """The phrasings of refusal that trained variants saw, and those that were held out."""
    variants = _Below("variants")
    """The folder of the variants' folders."""

    def card(self, judge: str) -> Path:
        """A judge's card: how it compares with people's labels of other answers."""
        return self.judges / f"{_safe(judge)}.json"

    def usage(self, judge: str) -> Path:
        """What the verdicts of a paid judge took."""
        return self.judges / f"{_safe(judge)}.usage.json"

    def routing(self, task: str) -> Path:
        """The routing counts of a task's identify prompts."""
        return self.folder / "routing" / f"{_safe(task)}.safetensors"

    def test_routing(self, task: str) -> Path:
        """The routing counts of base's answers to a task's test prompts."""
        return self.folder / "routing" / "test" / f"{_safe(task)}.safetensors"

    def captured(self) -> list[Path]:
        """Return the files of routing counts that exist, sorted."""
        return sorted(self.folder.glob("routing/[!.]*.safetensors"))

    def captured_answers(self, task: str) -> Path:
        """The answers given while routing was captured."""
        return self.routing(task).with_suffix(".jsonl")

    def own_answers(self, task: str) -> Path:
        """The base model's own answers to a task's train prompts."""
        return self.folder / "training" / f"{_safe(task)}.jsonl"

    def variant(self, name: str) -> VariantLayout:
        """The paths of a variant."""
        return VariantLayout(self.variants / _safe(name))

    def is_made_of_others(self, name: str) -> bool:
        """Say whether a file, by its name in the folder, is made of the others: summary, reports, tables."""
        made = (self.summary, self.html, self.redacted, self.markdown, self.differences)
        path = self.folder / name
        return path in made or path.is_relative_to(self.tables)

    def of_base(self) -> Iterator[Path]:
        """Yield the files that say something of the base model alone, so that another run may take them."""
        routing = ("routing/*.safetensors", "routing/test/*.safetensors", "routing/*.jsonl")
        for pattern in (*routing, "training/*.jsonl"):
            yield from self.folder.glob(pattern)
        base = self.variant("base")
        yield from base.folder.glob("responses/*.jsonl")
        yield from (path for path in (base.capability, base.served) if path.is_file())

    def is_run(self) -> bool:
        """Say whether the folder looks like a run's, finished or not."""
        return self.run.is_file() or self.summary.is_file()


def run_folders(place: Path) -> Iterator[Path]:
    """Yield the run folders below a folder, a few levels deep, in the order of their names."""
    level = [place] if place.is_dir() else []
    for _ in range(_DEPTH):
        below = sorted(path for folder in level for path in folder.iterdir() if path.is_dir())
        level = []
        for path in below:
            if Layout(path).is_run():
                yield path
            elif not path.name.startswith("."):
                level.append(path)


def not_there(path: Path, hint: str = "expected the folder of a finished run") -> BadInputError:
    """Return the error for a file that a run folder lacks."""
    if path.parent.is_file():
        return BadInputError(f"{path.parent}: is a file; expected the folder of a finished run")
    return BadInputError(f"{path}: no such file; {hint}")


def is_unfinished(name: str) -> bool:
    """Say whether a file of a run folder, by its name there, is part of work that is not finished."""
    return any(part.startswith(".") or part.endswith(".partial") for part in name.split("/"))


def _safe(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise BadInputError(f"{name!r} cannot be the name of a file in the run folder")
    return name


PATHS = Layout(Path())
"""Paths within any run folder; where names are placeholders, they are the patterns that a stage writes."""
