"""Judges by name: those of the registry, and those that a YAML file describes (docs/judges.md).

A file is ours, lies in a folder named with `--include`, or is named by its path. The judge's record in run.json holds
all of it, so that a run can be judged again without the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from harness.base.content import yaml_files_by_name
from harness.base.errors import BadInputError, nearest
from harness.base.files import read_mapping
from harness.base.schema import require_file_name, validated
from harness.judges.base import JUDGES, Judge
from harness.judges.classifier.judge import ModelJudge
from harness.judges.preset import Preset, PresetJudge

FORMS = {
    "phrases": ("phrases:PhraseJudge", "phrases:PhraseList"),
    "rubric": ("llm.judge:LlmJudge", "llm.rubric:Rubric"),
    "classifier": ("classifier.sequence:SequenceJudge", "classifier.sequence:SequencePreset"),
    "guard": ("classifier.guard:GuardJudge", "classifier.guard:GuardPreset"),
    "policy": ("classifier.guard:GuardJudge", "classifier.guard:PolicyPreset"),
    "score": ("classifier.score:ScoreJudge", "classifier.score:ScorePreset"),
}
"""How a judge may judge: its class and what its file holds."""

# Texts that may stand in files of their own.
_TEXTS = ("template", "policy")
# What a file does not take over from the one that it extends.
_OWN = ("name", "also")

Settings = Mapping[str, Mapping[str, Any]]
"""What a run's configuration says of judges, by their names: in place of what their files say."""


class _Files:
    """The files of judges, read with a run's settings of them."""

    def __init__(self, include: Sequence[Path], settings: Settings) -> None:
        self.by_name = yaml_files_by_name("judges", include)
        self._settings = settings
        self.read: set[str] = set()

    def path(self, name: str) -> Path | None:
        """Return the file of a judge; None where it has none.

        Raises:
            BadInputError: a path that names no file.
        """
        if name.endswith((".yaml", ".yml")):
            path = Path(name).expanduser()
            if not path.is_file():
                raise BadInputError(f"judge: no file {name}: expected a judge's YAML file")
            return path
        return self.by_name.get(name)

    def judge(self, path: Path) -> Judge:
        """Make the judge of a file."""
        content = self._content(path, ())
        content.setdefault("name", path.stem)
        where = f"{path} with judge_settings.{path.stem}" if path.stem in self._settings else str(path)
        judge = _made(content, where)
        require_file_name(path, judge.name)
        return judge

    def _content(self, path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
        if path in extending:
            raise BadInputError(f"{path}: extends: '{path.stem}' extends itself")
        content = _with_texts(read_mapping(path), path.parent, str(path))
        below = {}
        if (name := content.pop("extends", None)) is not None:
            base = self.path(str(name))
            if base is None:
                raise BadInputError(
                    f"{path}: extends: unknown judge '{name}': {nearest(str(name), self.by_name)}"
                )
            extended = self._content(base, (*extending, path))
            below = {key: value for key, value in extended.items() if key not in _OWN}
        self.read.add(path.stem)
        said = _with_texts(self._settings.get(path.stem, {}), Path(), f"judge_settings.{path.stem}")
        return {**below, **content, **said}

    def refuse_idle_settings(self) -> None:
        """Refuse settings of a judge that is not there."""
        for name in self._settings:
            if name not in self.read:
                raise BadInputError(
                    f"judge_settings: '{name}' is no judge of this run that has a file: {nearest(name, self.read)}"
                )


def make_judges(
    names: Iterable[str], include: Sequence[Path] = (), settings: Settings | None = None
) -> list[Judge]:
    """Return the judges of names, each followed by those that it is always named with.

    Judges that put the same question to the same model share it, and what it wrote.

    Args:
        names: of judges, or paths of YAML files.
        include: folders with more YAML files.
        settings: what the run's configuration says of them.

    Raises:
        BadInputError: a judge is unknown, its file or a file that it names is missing or wrong, or settings are of a
            judge that is not there.
    """
    files = _Files(include, settings or {})
    made: dict[str, Judge] = {}
    for name in names:
        judge = _find(name, files)
        made.setdefault(judge.name, judge)
        for other in judge.preset.also if isinstance(judge, PresetJudge) else ():
            if other not in made:
                made[other] = _find(other, files)
    files.refuse_idle_settings()
    judges = list(made.values())
    share(judges)
    return judges


def make_judge(name: str, include: Sequence[Path] = (), settings: Settings | None = None) -> Judge:
    """Return one judge without those that it is named with; arguments and errors are those of `make_judges`."""
    files = _Files(include, settings or {})
    judge = _find(name, files)
    files.refuse_idle_settings()
    return judge


def list_judges(include: Sequence[Path] = ()) -> list[Judge]:
    """Return every judge by name; of two with one name, that of `include` counts."""
    files = _Files(include, {})
    made = {name: make() for name, make in JUDGES.working() if files.path(name) is None}
    made |= {name: files.judge(path) for name, path in files.by_name.items()}
    return [made[name] for name in sorted(made)]


def judge_of_run(name: str, records: Mapping[str, Mapping[str, Any]]) -> Judge:
    """Return a judge as a run had it.

    A run may be somebody else's: whom a rubric is put to, with the user's key, is read from the environment again.

    Args:
        name: of the judge.
        records: by judge, as run.json keeps them.
    """
    settings = records.get(name, {}).get("settings") or {}
    content = {key: value for key, value in settings.get("preset", settings).items() if key != "base_url"}
    return _made(content, f"run.json: judges.{name}") if "form" in content else make_judge(name)


def share(judges: Iterable[Judge]) -> None:
    """Let judges that put the same question to the same model share it, and what it wrote."""
    asked = [judge for judge in judges if isinstance(judge, ModelJudge)]
    for at, judge in enumerate(asked):
        same = (
            other.checkpoint for other in asked[:at] if other.checkpoint.question == judge.checkpoint.question
        )
        judge.checkpoint = next(same, judge.checkpoint)


def _find(name: str, files: _Files) -> Judge:
    path = files.path(name)
    return JUDGES.get(name)() if path is None else files.judge(path)


def _made(content: Mapping[str, Any], where: str) -> Judge:
    form = content.get("form")
    if form not in FORMS:
        found = (
            f"found '{form}', {nearest(str(form), FORMS)}" if form is not None else "or `extends`, missing"
        )
        raise BadInputError(f"{where}: form: expected one of {', '.join(FORMS)}, {found}")
    judge, schema = (resolve_name(f"harness.judges.{name}") for name in FORMS[form])
    preset: Preset = validated(dict(content), where, schema)
    made: Judge = judge(preset)
    return made


def _with_texts(content: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Return content with the texts of the files that it names.

    Raises:
        BadInputError: there is no such file, or the text is given too.
    """
    result = dict(content)
    for text in _TEXTS:
        file = result.pop(f"{text}_file", None)
        if file is None:
            continue
        path = folder / Path(str(file)).expanduser()
        if text in result:
            raise BadInputError(f"{where}: expected either {text} or {text}_file, found both")
        if not path.is_file():
            raise BadInputError(f"{where}: {text}_file: no file {path}")
        try:
            result[text] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise BadInputError(f"{where}: {text}_file: {path} is not UTF-8 text") from None
    return result
