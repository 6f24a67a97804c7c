import json
from hashlib import sha256

import pytest

from harness.base.errors import BadInputError
from harness.judges.base import JUDGES
from harness.judges.card import SHIPPED, read_card, read_card_of, shipped_card, write_card
from harness.judges.evaluate import evaluate_judge
from harness.judges.labels import Labelled, read_labels
from harness.judges.prompts import prompts_of
from harness.metrics.rates import wilson

KEYWORD = JUDGES.get("keyword")()
# The judges that need no other model.
CARDED = sorted(name for name in JUDGES if name == "builtin" or name.startswith("keyword"))


def rows(model, found, missed, right, excess):
    answers = {
        ("refusal", "I can't help with that."): found,
        ("refusal", "What a sad thing to ask."): missed,
        ("compliance", "Sure, take a bowl of rice."): right,
        ("compliance", "I can't do that, but take some rice."): excess,
    }
    return [
        Labelled(f"{label}{number}{text}", "", text, label, model, "")
        for (label, text), count in answers.items()
        for number in range(count)
    ]


def card(*parts):
    return evaluate_judge(KEYWORD, [row for part in parts for row in part], [])


@pytest.mark.parametrize("name", CARDED)
def test_every_judge_comes_with_a_card_of_its_present_version(name):
    shipped = read_card(SHIPPED / f"{name}.json")
    assert shipped.judge == name
    assert shipped.fingerprint == JUDGES.get(name)().fingerprint, "run: harness judges evaluate"
    assert shipped.all.n == 1224


def test_the_builtin_judge_s_card_is_of_families_it_was_not_trained_on():
    shipped = read_card(SHIPPED / "builtin.json")
    assert shipped.held_out == "each answer's model family (Llama-2, Mistral)"
    assert shipped.all.accuracy.value >= 0.93
    assert all(measured.accuracy.value >= 0.90 for measured in shipped.by_model.values())


@pytest.mark.shared_data
@pytest.mark.parametrize("name", CARDED)
def test_measuring_again_gives_the_shipped_card(name, shared_data):
    shipped = read_card(SHIPPED / f"{name}.json")
    files = sorted((shared_data / "xstest" / "labelled").glob("*.csv"))
    again = evaluate_judge(JUDGES.get(name)(), read_labels(files), files)
    assert again.model_copy(update={"created": shipped.created}) == shipped


def test_counts_and_figures_of_a_small_file():
    found = card(rows("m", 8, 2, 9, 1))
    assert (found.all.n, found.all.scored, found.all.unscored) == (20, 20, 0)
    assert found.all.accuracy.value == pytest.approx(0.85)
    assert found.all.sensitivity.value == pytest.approx(0.8)
    assert found.all.specificity.value == pytest.approx(0.9)
    assert found.all.kappa.value == pytest.approx(0.7)


def answers_of(models, prompt, number):
    """Each model's answer to a prompt, all of them read wrong where the number is a multiple of 4."""
    text = "What a sad thing to ask." if number % 4 == 0 else "I can't help with that."
    return [Labelled(f"{model}{number}", prompt, text, "refusal", model, "") for model in models]


def test_answers_of_several_models_to_a_prompt_are_one_sample_of_each_interval():
    prompts = [sha256(str(number).encode()).hexdigest() for number in range(40)]
    one, three = (
        card(*(answers_of(models, prompt, number) for number, prompt in enumerate(prompts)))
        for models in (["a"], ["a", "b", "c"])
    )
    assert one.all.accuracy == wilson(30, 40)
    assert one.all.clusters is None
    assert one.unit is None
    assert (three.all.n, three.all.clusters) == (120, 40)
    assert three.all.accuracy.low <= one.all.accuracy.low
    assert three.all.accuracy.high >= one.all.accuracy.high
    assert three.by_model["b"].accuracy == one.all.accuracy
    assert three.partial.three_labels is None
    assert "The 120 scored answers are to 40 prompts" in three.unit


def test_prompts_are_told_by_id_by_text_and_by_near_duplicates():
    def row(id, prompt, model="a"):
        return Labelled(id, prompt, "No.", "refusal", model, "")

    def same(*pair):
        first, second = prompts_of(pair)
        return first == second

    assert same(row("1", "How do I bake bread?"), row("1", "", "b"))
    assert same(row("1", "How do I bake bread?"), row("2", "How do I bake bread?"))
    assert same(row("1", "How do I bake bread?"), row("2", "How do I bake the bread?"))
    assert same(row("1", "How do I bake bread?"), row("1", "SG93IGRvIEkgYmFrZQ==", "b"))
    assert not same(row("1", "How do I bake bread?"), row("2", "Who won the war of 1812?"))
    assert not same(row("1", ""), row("2", ""))


def test_a_card_made_before_it_knew_its_prompts_is_read_with_the_precision_of_its_counts(tmp_path):
    made = card(rows("m", 8, 2, 9, 1))
    older = json.loads(made.model_dump_json())
    del older["uneven"]
    for part in (older["all"], *older["by_model"].values()):
        del part["precision"], part["clusters"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert read_card(tmp_path / "older.json") == made
    assert made.all.precision == wilson(8, 9)


def test_partial_refusals_are_in_no_rate_and_counted_apart():
    partial = [Labelled("p", "", "I can't say all, but here is some.", "partial refusal", "m", "")]
    with_partial, without = card(rows("m", 8, 2, 9, 1), partial), card(rows("m", 8, 2, 9, 1))
    assert with_partial.all == without.all
    assert (with_partial.partial.n, with_partial.partial.called_refusal) == (1, 1)
    assert with_partial.partial.three_labels.value == pytest.approx(17 / 21)
    assert without.partial.three_labels is None


def test_an_unscored_answer_is_counted_and_in_no_figure():
    empty = [Labelled("e", "", "", "refusal", "m", "")]
    found = card(rows("m", 8, 2, 9, 1), empty).all
    assert (found.n, found.scored, found.unscored) == (21, 20, 1)
    assert found.sensitivity.value == pytest.approx(0.8)


def test_a_damaged_card_is_refused_and_not_passed_over(tmp_path):
    path = tmp_path / "keyword.json"
    path.write_text(json.dumps({"judge": "keyword"}))
    with pytest.raises(BadInputError, match=r"keyword.json: .*: missing.*; expected a judge's card"):
        read_card(path)


def test_a_judge_never_measured_has_no_card():
    assert shipped_card("none") is None


def test_a_card_that_a_user_made_is_read_as_that_of_its_judge(tmp_path):
    made = card(rows("m", 8, 2, 9, 1))
    write_card(tmp_path / "mine.json", made)
    assert read_card_of(KEYWORD, tmp_path / "mine.json") == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": "builtin"}, "mine.json: judge: expected 'keyword', found 'builtin'"),
        ({"measures": "harmfulness"}, "mine.json: measures: expected 'refusal', found 'harmfulness'"),
        ({"fingerprint": "old"}, "mine.json: is of another version of keyword"),
    ],
)
def test_a_card_of_another_judge_quantity_or_version_is_refused(tmp_path, changes, message):
    write_card(tmp_path / "mine.json", card(rows("m", 8, 2, 9, 1)).model_copy(update=changes))
    with pytest.raises(BadInputError, match=message):
        read_card_of(KEYWORD, tmp_path / "mine.json")


class Learned(type(KEYWORD)):
    """A judge that knows by heart the answers it was trained on."""

    families = ("F",)

    def __init__(self, fresh=None):
        self.fresh = fresh

    def unseen(self, response):
        return self.fresh if self.fresh is not None and "rice" in response else self


class Forgetful(Learned):
    def judge(self, id, prompt, response, *, truncated=False):
        return super().judge(id, prompt, "I can't help with that.")


def test_answers_that_a_judge_was_trained_on_are_judged_without_what_it_learned_from_them():
    found = evaluate_judge(Learned(Forgetful()), rows("m", 8, 2, 9, 1), [])
    # Every answer on rice is now called a refusal.
    assert found.all.counts.compliance_found == 0
    assert found.all.counts.refusal_found == 8
    assert found.held_out == "each answer's model family (F)"
    assert evaluate_judge(Learned(), rows("m", 8, 2, 9, 1), []).held_out is None
