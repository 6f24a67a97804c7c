"""Where everything in a run folder is: each path is named here and nowhere else.

Nothing is read or checked. Names of variants, tasks and judges may come from someone else's files, so a name that
would lead out of the folder is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import BadInputError

RUN = "run.json"
SUMMARY = "summary.json"
MANIFEST = "manifest.json"
SPLITS = "splits.json"
_DEPTH = 3


@dataclass(frozen=True, slots=True)
class VariantLayout:
    """The paths of one variant.

    Args:
        folder: RUN/variants/NAME.
    """

    folder: Path

    @property
    def selection(self) -> Path:
        """The experts that it acts on."""
        return self.folder / "selection.json"

    @property
    def delta(self) -> Path:
        """The trained experts' new values."""
        return self.folder / "delta.safetensors"

    @property
    def delta_card(self) -> Path:
        """How they came about."""
        return self.folder / "delta.json"

    @property
    def training(self) -> Path:
        """Loss, learning rate and gradient norm of each step."""
        return self.folder / "train.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The state of a training that is not finished."""
        return self.folder / "checkpoint.partial"

    @property
    def job(self) -> Path:
        """What the processes of a training share while it lasts."""
        return self.folder / "job.partial"

    @property
    def proof(self) -> Path:
        """The frozen proof."""
        return self.folder / "proof.json"

    @property
    def model(self) -> Path:
        """The whole checkpoint, where it is kept."""
        return self.folder / "model"

    @property
    def served(self) -> Path:
        """How the checkpoint that an engine served compares with the model in memory."""
        return self.folder / "served.json"

    @property
    def drift(self) -> Path:
        """How far the variant is from base on benign text."""
        return self.folder / "drift.json"

    @property
    def capability(self) -> Path:
        """lm-eval's results with a score for each item."""
        return self.folder / "capability.json"

    def responses(self, task: str) -> Path:
        """Its answers to a task."""
        return self.folder / "responses" / f"{_safe(task)}.jsonl"

    def verdicts(self, task: str, judge: str) -> Path:
        """A judge's verdicts on them."""
        return self.folder / "verdicts" / f"{_safe(task)}.{_safe(judge)}.jsonl"

    def answered(self) -> list[str]:
        """Return the tasks that have a file of answers, sorted."""
        return sorted(path.stem for path in (self.folder / "responses").glob("[!.]*.jsonl"))

    def judges(self, task: str) -> list[str]:
        """Return the judges that have a file of verdicts on a task's answers, sorted."""
        start = f"{task}."
        names = (path.stem for path in (self.folder / "verdicts").glob("[!.]*.jsonl"))
        return sorted(name.removeprefix(start) for name in names if name.startswith(start))


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a run folder.

    Args:
        root: the folder.
    """

    root: Path

    @property
    def run(self) -> Path:
        """Configuration, specifications, seeds, versions and stages."""
        return self.root / RUN

    @property
    def summary(self) -> Path:
        """What reports, gates and other programs read."""
        return self.root / SUMMARY

    @property
    def manifest(self) -> Path:
        """Size and hash of every other file."""
        return self.root / MANIFEST

    @property
    def splits(self) -> Path:
        """The ids of the prompts of each task and role."""
        return self.root / SPLITS

    @property
    def experts(self) -> Path:
        """The expert table."""
        return self.root / "experts.parquet"

    @property
    def html(self) -> Path:
        """The report as a page."""
        return self.root / "report.html"

    @property
    def redacted(self) -> Path:
        """The same without harmful prompts and answers."""
        return self.root / "report-redacted.html"

    @property
    def markdown(self) -> Path:
        """The report as Markdown."""
        return self.root / "report.md"

    @property
    def tables(self) -> Path:
        """The folder of the report's tables as CSV and LaTeX."""
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        """The folder of what `harness analyze` draws."""
        return self.root / "figures"

    @property
    def judges(self) -> Path:
        """The folder of judges' cards."""
        return self.root / "judges"

    @property
    def differences(self) -> Path:
        """Every answer on which judges differ."""
        return self.judges / "differences.jsonl"

    def card(self, judge: str) -> Path:
        """How a judge compares with people's labels, as it was known when the run was judged."""
        return self.judges / f"{_safe(judge)}.json"

    def usage(self, judge: str) -> Path:
        """What the verdicts of a paid judge took."""
        return self.judges / f"{_safe(judge)}.usage.json"

    def routing(self, task: str) -> Path:
        """The routing counts of a task's identify prompts."""
        return self.root / "routing" / f"{_safe(task)}.safetensors"

    def captured(self) -> list[Path]:
        """Return the files of routing counts that exist, sorted."""
        return sorted((self.root / "routing").glob("[!.]*.safetensors"))

    def captured_answers(self, task: str) -> Path:
        """The answers given while routing was captured."""
        return self.routing(task).with_suffix(".jsonl")

    @property
    def token_shares(self) -> Path:
        """For a few prompts, each token's share of gate weight to the selected experts."""
        return self.root / "routing" / "token_shares.json"

    def own_answers(self, task: str) -> Path:
        """The base model's own answers to a task's train prompts."""
        return self.root / "training" / f"{_safe(task)}.jsonl"

    @property
    def examples(self) -> Path:
        """What trained variants learn from."""
        return self.root / "training" / "examples.jsonl"

    @property
    def phrasings(self) -> Path:
        """The phrasings of refusal that trained variants saw, and those that were held out."""
        return self.root / "training" / "phrasings.json"

    @property
    def variants(self) -> Path:
        """The folder of the variants' folders."""
        return self.root / "variants"

    def variant(self, name: str) -> VariantLayout:
        """The paths of a variant."""
        return VariantLayout(self.variants / _safe(name))

    def is_made_of_others(self, name: str) -> bool:
        """Say whether a file, by its name in the folder, is made of the others: summary, reports, tables."""
        made = (self.summary, self.html, self.redacted, self.markdown, self.differences)
        path = self.root / name
        return path in made or path.is_relative_to(self.tables)

    def of_base(self) -> Iterator[Path]:
        """Yield the files that say something of the base model alone, so that another run may take them."""
        base = self.variant("base")
        for folder, pattern in (
            (self.root / "routing", "*.safetensors"),
            (self.root / "routing", "*.jsonl"),
            (self.examples.parent, "*.jsonl"),
            (base.folder / "responses", "*.jsonl"),
        ):
            yield from folder.glob(pattern)
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


def is_unfinished(name: str) -> bool:
    """Say whether a file of a run folder, by its name there, is part of work that is not finished."""
    return any(part.startswith(".") or part.endswith(".partial") for part in name.split("/"))


def _safe(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise BadInputError(f"{name!r} cannot be the name of a file in the run folder")
    return name


PATHS = Layout(Path())
"""Paths within any run folder; where names are placeholders, they are the patterns that a stage writes."""
