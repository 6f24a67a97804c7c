"""What a report may read beside `summary.json`: each file is optional, None means that the run lacks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from harness.base.errors import BadInputError, first_line
from harness.base.files import read_json, read_jsonl

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

EXPERT_COLUMNS = ("phase", "layer", "expert", "risk_diff")


class Response(BaseModel):
    """One row of responses/TASK.jsonl."""

    model_config = ConfigDict(frozen=True)

    id: str
    prompt: str
    response: str
    finish_reason: str


class Verdict(BaseModel):
    """One row of verdicts/TASK.JUDGE.jsonl; `label` is None for an answer that could not be judged."""

    model_config = ConfigDict(frozen=True)

    id: str
    label: Literal["refusal", "compliance"] | None
    rule: str | None = None
    reason: str | None = None


class TrainingStep(BaseModel):
    """One row of train.jsonl."""

    model_config = ConfigDict(frozen=True)

    step: int
    loss: float


class ColouredTokens(BaseModel):
    """One prompt and its answer in routing/token_shares.json, token by token."""

    model_config = ConfigDict(frozen=True)

    task: str
    kind: Literal["harmful", "benign"]
    id: str
    prompt_tokens: int
    texts: list[str]
    shares: list[float]


class _SplitTask(BaseModel):
    categories: dict[str, str] = {}


class _Splits(BaseModel):
    tasks: dict[str, _SplitTask]


class _Acted(BaseModel):
    experts: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of one run. All methods raise BadInputError for a file that is there and cannot be read."""

    path: Path

    def run(self) -> dict[str, Any] | None:
        """Return run.json: configuration, seeds, versions, stages."""
        return _read(self.path / "run.json", read_json, dict[str, Any])

    def experts(self) -> pd.DataFrame | None:
        """Return the expert table, one row per (phase, layer, expert)."""
        path = self.path / "experts.parquet"
        if not path.exists():
            return None
        import pandas as pd
        from pyarrow import ArrowInvalid

        try:
            table = pd.read_parquet(path)
        except (ArrowInvalid, OSError) as error:
            raise BadInputError(f"{path}: not a Parquet file ({first_line(error)})") from None
        absent = [column for column in EXPERT_COLUMNS if column not in table.columns]
        if absent:
            raise BadInputError(f"{path}: no column {absent[0]}; found {', '.join(map(str, table.columns))}")
        return table

    def categories(self, task: str) -> dict[str, str]:
        """Return what each test prompt of a task is about, by id, where its data set says."""
        found = _read(self.path / "splits.json", read_json, _Splits)
        entry = None if found is None else found.tasks.get(task)
        return {} if entry is None else entry.categories

    def token_shares(self) -> list[ColouredTokens]:
        """Return the tokens of a few identify prompts with their shares of selected experts, where they were kept."""
        path = self.path / "routing" / "token_shares.json"
        return _read(path, read_json, list[ColouredTokens]) or []

    def selection(self, variant: str) -> list[tuple[int, int]] | None:
        """Return the (layer, expert) pairs that a variant acts on."""
        found = _read(self._of(variant) / "selection.json", read_json, _Acted)
        return None if found is None else found.experts

    def training(self, variant: str) -> list[TrainingStep] | None:
        """Return the loss of each training step."""
        return _read(self._of(variant) / "train.jsonl", read_jsonl, list[TrainingStep])

    def responses(self, variant: str, task: str) -> list[Response] | None:
        """Return a variant's answers to a task."""
        path = self._of(variant) / "responses" / f"{_name(task)}.jsonl"
        return _read(path, read_jsonl, list[Response])

    def verdicts(self, variant: str, task: str, judge: str) -> list[Verdict] | None:
        """Return a judge's verdicts on them."""
        path = self._of(variant) / "verdicts" / f"{_name(task)}.{_name(judge)}.jsonl"
        return _read(path, read_jsonl, list[Verdict])

    def _of(self, variant: str) -> Path:
        return self.path / "variants" / _name(variant)


def _name(name: str) -> str:
    # Names come from summary.json, which may be someone else's; they must not lead out of the folder.
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise BadInputError(f"summary.json: {name!r} cannot be the name of a file in the run folder")
    return name


def _read(path: Path, read: Any, shape: type[T]) -> T | None:
    try:
        return TypeAdapter(shape).validate_python(read(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"{path}: {f'{where}: ' if where else ''}{first['msg']}") from None
    except (ValueError, OSError) as error:
        raise BadInputError(f"{path}: cannot be read ({first_line(error)})") from None
