from pathlib import Path

from harness.base.files import write_json
from harness.runs.layout import Layout, VariantLayout, is_unfinished, run_folders


def paths_of(layout: Layout | VariantLayout) -> set[Path]:
    """Return every path that a layout names without further words."""
    values = [getattr(layout, name) for name in vars(type(layout)) if name != "folder"]
    return {value for value in values if isinstance(value, Path)}


def test_every_file_that_a_run_leaves_is_named_by_the_layout(small_run):
    layout = Layout(small_run)
    known = paths_of(layout)
    for path in layout.captured():
        known |= {path, layout.captured_answers(path.stem), layout.own_answers(path.stem)}
        known.add(layout.test_routing(path.stem))
    for folder in layout.variants.iterdir():
        variant = layout.variant(folder.name)
        known |= paths_of(variant)
        for task in variant.answered():
            known.add(variant.responses(task))
            known |= {variant.verdicts(task, judge) for judge in variant.judges(task)}
    files = [path for path in small_run.rglob("*") if path.is_file()]
    unknown = [path for path in files if not known & {path, path.parent}]
    assert len(files) > 50
    assert unknown == []


def test_run_folders_are_found_a_few_levels_deep_and_not_within_each_other(tmp_path):
    for name in ("b", "a/x", "a/y/z", "b/inner", "a/1/2/3", ".hidden/x"):
        write_json(tmp_path / name / "run.json", {})
    found = [path.relative_to(tmp_path).as_posix() for path in run_folders(tmp_path)]
    assert found == ["b", "a/x", "a/y/z"]
    assert list(run_folders(tmp_path / "not there")) == []


def test_hidden_and_partial_files_are_unfinished():
    assert is_unfinished("variants/base/responses/a.jsonl.partial/00001.jsonl")
    assert is_unfinished("variants/.summary.json.1.tmp")
    assert not is_unfinished("variants/base/responses/a.jsonl")


def test_files_that_are_being_written_are_not_listed(tmp_path):
    variant = Layout(tmp_path).variant("base")
    for path in (variant.responses("a@forced"), variant.verdicts("a", "keyword")):
        write_json(path, {})
        write_json(path.with_name(f".{path.name}.1.tmp"), {})
        write_json(path.with_name(f".{path.name}"), {})
    assert variant.answered() == ["a@forced"]
    assert variant.judges("a") == ["keyword"]
