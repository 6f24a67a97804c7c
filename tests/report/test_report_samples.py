import pytest

from harness.errors import BadInputError
from harness.report.folder import RunFiles
from harness.report.samples import samples_of


@pytest.fixture
def two(make_summary, make_variant):
    return make_summary(
        {
            "base": make_variant({"advbench": 1}),
            "unsafe_experts": make_variant({"advbench": 1}, trained=1),
        }
    )


def test_samples_that_variants_differ_on_come_first(two, give_answers, tmp_path):
    labels = ["compliance"] * 6
    give_answers(tmp_path, "base", "advbench", {f"p{i}": ("Sure.", label) for i, label in enumerate(labels)})
    labels[3] = labels[5] = "refusal"
    give_answers(
        tmp_path, "unsafe_experts", "advbench", {f"p{i}": ("No.", label) for i, label in enumerate(labels)}
    )

    (task,) = samples_of(RunFiles(tmp_path), two, limit=4)
    assert [sample.id for sample in task.samples] == ["p3", "p5", "p0", "p1"]
    assert (task.total, task.differing) == (6, 2)
    assert [(answer.variant, answer.text, answer.label) for answer in task.samples[0].answers] == [
        ("base", "Sure.", "compliance"),
        ("unsafe_experts", "No.", "refusal"),
    ]


def test_answer_without_a_verdict_is_unscored_with_the_reason(two, give_answers, tmp_path):
    give_answers(tmp_path, "base", "advbench", {"p0": ("", None), "p1": ("Yes.", "compliance")})
    verdicts = tmp_path / "variants/base/verdicts/advbench.keyword.jsonl"
    verdicts.write_text(verdicts.read_text().splitlines()[0] + "\n")
    (task,) = samples_of(RunFiles(tmp_path), two)
    found = {sample.id: sample.answers[0] for sample in task.samples}
    assert (found["p0"].label, found["p0"].because) == ("unscored", "empty answer")
    assert (found["p1"].label, found["p1"].because) == ("unscored", "no verdict in the run folder")


def test_long_answer_is_cut_and_what_is_left_out_counted(two, give_answers, tmp_path):
    give_answers(tmp_path, "base", "advbench", {"p0": ("x" * 100_000, "compliance")})
    (task,) = samples_of(RunFiles(tmp_path), two)
    answer = task.samples[0].answers[0]
    assert (len(answer.text), answer.left_out) == (4_000, 96_000)


def test_task_without_answers_is_left_out(two, tmp_path):
    assert samples_of(RunFiles(tmp_path), two) == []


def test_broken_answers_are_bad_input_that_names_the_file(two, tmp_path):
    folder = tmp_path / "variants/base/responses"
    folder.mkdir(parents=True)
    for text, message in (('{"id": 1', "cannot be read"), ('{"id": "p0"}', r"0\.prompt: Field required")):
        (folder / "advbench.jsonl").write_text(text)
        with pytest.raises(BadInputError, match=rf"advbench\.jsonl: {message}") as error:
            samples_of(RunFiles(tmp_path), two)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../secret", "a/b", "..", "", "a\\b", "a\0"])
def test_names_cannot_lead_out_of_the_run_folder(name, tmp_path):
    with pytest.raises(BadInputError, match="cannot be the name of a file"):
        RunFiles(tmp_path).responses("base", name)
    with pytest.raises(BadInputError, match="cannot be the name of a file"):
        RunFiles(tmp_path).selection(name)


def test_expert_table_that_is_no_parquet_or_lacks_a_column_is_bad_input(tmp_path):
    import pandas as pd

    path = tmp_path / "experts.parquet"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BadInputError, match=r"experts\.parquet: not a Parquet file"):
        RunFiles(tmp_path).experts()
    pd.DataFrame({"phase": ["prompt"], "layer": [0], "expert": [0]}).to_parquet(path)
    with pytest.raises(BadInputError, match="no column risk_diff; found phase, layer, expert"):
        RunFiles(tmp_path).experts()
