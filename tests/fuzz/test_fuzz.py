"""Whatever a file that the product reads holds: a result, or exit code 2 and one line; never a traceback.

Every file goes through the command line's own entry. `-m faults` tries many more examples of each.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import synthetic_runs
from fuzz.documents import as_bytes, of_schema, spoilt, written
from hypothesis import HealthCheck, given, settings

from harness.base.content import content_folder
from harness.base.files import read_json, read_jsonl, read_mapping, sha256, write_json
from harness.cli.main import main
from harness.config import RunConfig
from harness.data.task import TaskSpec
from harness.gate.schema import GateFile
from harness.judges.card import Card, shipped_card
from harness.models.load import DEMO_FOLDER
from harness.runs.layout import MANIFEST
from harness.sweep.schema import SweepFile

FEW, MANY = 4, 16


@dataclass(frozen=True)
class Place:
    """Where files are put: an undamaged run, its copy, a model, and a folder of the user's own."""

    folder: Path
    pristine: Path
    codes: list[int]
    """How the commands of the last file ended."""

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def own(self) -> Path:
        return self.folder / "own"

    def says(self, *arguments: object, codes: tuple[int, ...] = (0, 2)) -> None:
        """Run a command; whatever its end, there is no traceback, and bad input is one line."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main([*map(str, arguments)])
        said = err.getvalue()
        self.codes.append(code)
        assert code in codes, (code, said)
        if code == 2:
            lines = [line for line in said.splitlines() if line.startswith("harness: ")]
            assert len(lines) == 1, said
            assert said.endswith(f"{lines[0]}\n"), said
            assert len(lines[0]) < 2000, lines[0]
            assert "\x1b" not in said

    def put(self, name: str, content: bytes) -> Path:
        path = self.own / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    synthetic_runs.write_run(folder / "pristine", synthetic_runs.small())
    shutil.copytree(folder / "pristine", folder / "run")
    shutil.copytree(DEMO_FOLDER, folder / "model")
    return Place(folder, folder / "pristine", [])


GATE = {"name": "g", "metric": "refusal_rate", "task": "demo_harmful", "at_least": 0.5}
SWEEP = {
    "base": {"limit": 12, "baselines": []},
    "axes": {"seed": [0, 1], "recipe": {"a": {"selection.top_k": 3}}},
}
CONFIG = {
    "model": "demo", "seed": 3, "limit": {"test": 4}, "tasks": ["demo_harmful", "demo_benign"], "data_dir": ["."],
    "selection": {"method": "risk_diff", "top_k": 4}, "training": {"max_steps": 3, "early_stopping": {"every": 2}},
    "generation": {"max_new_tokens": 4, "follow": []}, "capability": {"tasks": ["demo_facts"], "limit": 3},
    "margins": {"false_refusal": 0.1},
}  # fmt: skip
_NOUNS = [
    "river",
    "stone",
    "lamp",
    "cloud",
    "engine",
    "garden",
    "violin",
    "bridge",
    "market",
    "castle",
    "pepper",
    "anchor",
    "mirror",
    "forest",
]
ROWS = [
    {
        "id": f"row {n}",
        "text": f"How does one {noun} differ from {noun[::-1]}?",
        "group": str(n % 2),
        "note": None,
    }
    for n, noun in enumerate(_NOUNS)
]
TASK = {
    "name": "mine", "kind": "harmful", "description": "d", "source": {"files": ["rows.jsonl"]},
    "prompt": {"column": "text"}, "id_column": "id", "category_column": "group", "max_new_tokens": 4,
    "where": {"column": "text", "startswith": "How"}, "licence": "MIT", "citation": "c",
}  # fmt: skip
PLAN = ("--dry-run", "--limit", "4", "--intervention", "system_prompt", "--baselines", "none")
Reads = Callable[[bytes, Place], None]


def _baseline(content: bytes, place: Place) -> None:
    place.put("baselines/mine.yaml", content)
    place.says("baselines", "show", "mine", "--include", place.own)
    place.says("baselines", "list", "--include", place.own)


def _plan_of_task(place: Place) -> None:
    given = ("--include", place.own, "--data-dir", place.own)
    place.says("run", "--tasks", "mine,demo_benign", *given, *PLAN)


def _task(content: bytes, place: Place) -> None:
    place.put("rows.jsonl", as_bytes(ROWS, "lines"))
    place.put("tasks/mine.yaml", content)
    place.says("tasks", "show", "mine", "--include", place.own)
    _plan_of_task(place)


def _data(suffix: str) -> Reads:
    def read(content: bytes, place: Place) -> None:
        place.put("tasks/mine.yaml", as_bytes(TASK | {"source": {"files": [f"rows.{suffix}"]}}, "YAML"))
        place.put(f"rows.{suffix}", content)
        _plan_of_task(place)

    return read


def _capability(content: bytes, place: Place) -> None:
    place.put("capability/mine.yaml", content)
    place.says("tasks", "list", "--include", place.own)
    tasks = ("--tasks", "demo_harmful,demo_benign")
    place.says("run", "--capability", "mine", "--include", place.own, *tasks, *PLAN)


def _model(name: str) -> Reads:
    def read(content: bytes, place: Place) -> None:
        path = place.folder / "model" / name
        path.write_bytes(content)
        try:
            place.says("models", "inspect", path.parent, "--meta")
            place.says("run", "--model", path.parent, "--tasks", "demo_harmful,demo_benign", *PLAN)
        finally:
            shutil.copyfile(DEMO_FOLDER / name, path)

    return read


def _file_of_run(name: str, *commands: str) -> Reads:
    """Return what reads a run whose manifest vouches for a spoilt file, as that of another program might."""

    def read(content: bytes, place: Place) -> None:
        shutil.rmtree(place.run)
        shutil.copytree(place.pristine, place.run)
        (place.run / name).write_bytes(content)
        if name != MANIFEST:
            write_json(place.run / MANIFEST, {"files": _listed(place.run)})
        # One command each, whichever it is for this content.
        _COMMANDS[commands[zlib.crc32(content) % len(commands)]](place)

    return read


def _listed(run: Path) -> dict[str, Any]:
    files = (file for file in sorted(run.rglob("*")) if file.is_file() and file.name != MANIFEST)
    return {
        file.relative_to(run).as_posix(): {"size": file.stat().st_size, "sha256": sha256(file)}
        for file in files
    }


def _check(place: Place, run: Path, *more: object) -> None:
    gates = place.put("given/gates.yaml", as_bytes({"gates": [GATE]}, "YAML"))
    place.says("check", run, "--gates", gates, *more, codes=(0, 2, 3, 4))


_COMMANDS: dict[str, Callable[[Place], object]] = {
    "check": lambda place: _check(place, place.run),
    "report": lambda place: place.says("report", place.run),
    "leaderboard": lambda place: place.says("report", place.run, place.pristine),
    "measure": lambda place: place.says("measure", place.run),
    "list": lambda place: place.says("runs", "list", place.folder),
    "judge": lambda place: place.says("evaluate", place.run, "--judge", "builtin"),
}
_MADE = ("report", "measure", "check", "judge")


def _gates(content: bytes, place: Place) -> None:
    gates = place.put("given/gates.yaml", content)
    place.says("check", place.pristine, "--gates", gates, codes=(0, 2, 3, 4))


def _reference(content: bytes, place: Place) -> None:
    _check(place, place.pristine, "--against", place.put("given/reference.json", content))


def _card(content: bytes, place: Place) -> None:
    place.says("evaluate", place.run, "--judge", "keyword", "--card", place.put("given/card.json", content))


def _sweep(content: bytes, place: Place) -> None:
    place.says("sweep", place.put("given/sweep.yaml", content), "--dry-run")


def _config(content: bytes, place: Place) -> None:
    place.says("run", "--config", place.put("given/config.yaml", content), "--dry-run")


def _yaml_of(folder: str, file: str, **changed: Any) -> Callable[[Path], Any]:
    return lambda run: read_mapping(content_folder(folder) / file) | changed


def _json_of(path: Path) -> Callable[[Path], Any]:
    return lambda run: read_json(path)


@dataclass(frozen=True)
class Case:
    """A kind of file.

    Attributes:
        whole: a valid one, of the undamaged run's folder.
        form: JSON, YAML or lines.
        read: reads it with the commands that do.
        shape: the pydantic model to make others from.
        huge: whether numbers may be huge; a model of 10**30 layers takes as long.
    """

    whole: Callable[[Path], Any]
    form: str
    read: Reads
    shape: Any = None
    huge: bool = True


def _of_run(name: str, *commands: str) -> Case:
    read = read_jsonl if name.endswith("l") else read_json
    return Case(
        lambda run: read(run / name), "lines" if name.endswith("l") else "JSON", _file_of_run(name, *commands)
    )


_VARIANT = "variants/unsafe_experts"
CASES = {
    "gates": Case(lambda run: {"gates": [GATE]}, "YAML", _gates, GateFile),
    "task": Case(lambda run: TASK, "YAML", _task, TaskSpec),
    "baseline": Case(_yaml_of("baselines", "unsafe_experts.yaml", name="mine"), "YAML", _baseline),
    "steering": Case(_yaml_of("baselines", "steer.yaml", name="mine"), "YAML", _baseline),
    "capability task": Case(
        _yaml_of("tasks", "capability/piqa_local.yaml", task="mine"), "YAML", _capability
    ),
    "sweep": Case(lambda run: SWEEP, "YAML", _sweep, SweepFile),
    "config": Case(lambda run: CONFIG, "YAML", _config, RunConfig),
    "rows of JSON lines": Case(lambda run: ROWS, "lines", _data("jsonl")),
    "rows of JSON": Case(lambda run: ROWS, "JSON", _data("json")),
    "reference": Case(_json_of(content_folder("baselines") / "reference" / "demo.json"), "JSON", _reference),
    "card": Case(lambda run: shipped_card("keyword").model_dump(mode="json"), "JSON", _card, Card),
    **{
        name: Case(_json_of(DEMO_FOLDER / name), "JSON", _model(name), huge=name != "config.json")
        for name in ("config.json", "generation_config.json", "tokenizer_config.json")
    },
    **{name: _of_run(name, *_COMMANDS) for name in ("run.json", "summary.json", MANIFEST)},
    **{
        name: _of_run(name, *_MADE)
        for name in (
            "splits.json",
            "training/phrasings.json",
            *(f"{_VARIANT}/{kind}.json" for kind in ("capability", "drift", "proof", "selection", "delta")),
            f"{_VARIANT}/train.jsonl",
            f"{_VARIANT}/responses/demo_harmful.jsonl",
            f"{_VARIANT}/verdicts/demo_harmful.keyword.jsonl",
        )
    },
}


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("reference", "capability task")])
def test_what_is_spoilt_below_is_read_while_it_is_whole(name, place):
    case = CASES[name]
    _fresh(place)
    case.read(as_bytes(case.whole(place.pristine), case.form), place)
    assert set(place.codes) == {0}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_read_or_refused_in_one_line(name, place):
    _fuzz(CASES[name], place, FEW)


@pytest.mark.faults
@pytest.mark.parametrize("name", CASES)
def test_many_more_files_are_read_or_refused_in_one_line(name, place):
    _fuzz(CASES[name], place, MANY)


def _fresh(place: Place) -> None:
    shutil.rmtree(place.own, ignore_errors=True)
    place.own.mkdir()
    place.codes.clear()


def _fuzz(case: Case, place: Place, number: int) -> None:
    documents = spoilt(case.whole(place.pristine), huge=case.huge)
    if case.shape is not None:
        documents = documents | of_schema(case.shape)

    @settings(max_examples=number, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(written(documents, case.form))
    def each(content: bytes) -> None:
        _fresh(place)
        case.read(content, place)

    each()
