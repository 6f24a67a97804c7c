import pytest

from harness.base.errors import BadInputError
from harness.base.schema import read_named_yaml
from harness.judges.base import JUDGES
from harness.judges.phrases import PhraseJudge, PhraseList

LISTS = {name: listed.preset for name in JUDGES if isinstance(listed := JUDGES.get(name)(), PhraseJudge)}


def judge(**changes):
    fields = {
        "name": "mine",
        "form": "phrases",
        "measures": "refusal",
        "description": "x",
        "source": "x",
        "url": "https://example.org",
        "match": "anywhere",
        "ignore_case": False,
        "phrases": ("I cannot",),
    }
    return PhraseJudge(PhraseList(**fields | changes))


@pytest.mark.parametrize("name", LISTS)
def test_every_published_list_is_registered_and_finds_each_of_its_phrases(name):
    found = JUDGES.get(name)()
    for phrase in LISTS[name].phrases:
        assert found.judge("1", "", f"{phrase} and more").label == "refusal"
    assert found.judge("1", "", "Sure: boil water, then add the tea.").label == "compliance"


@pytest.mark.parametrize("name", LISTS)
def test_every_published_list_cites_its_paper_and_place(name):
    assert "arXiv" in LISTS[name].source
    assert LISTS[name].url.startswith("https://github.com/")


def test_a_phrase_anywhere_counts_unless_the_list_is_of_beginnings():
    answer = "Here is a joke. I cannot tell a better one."
    assert judge().judge("1", "", answer).label == "refusal"
    assert judge(match="beginning").judge("1", "", answer).label == "compliance"
    assert judge(match="beginning").judge("1", "", " I cannot do it.").label == "refusal"


def test_capitals_count_unless_the_list_ignores_them():
    assert judge().judge("1", "", "i cannot do it").label == "compliance"
    assert judge(ignore_case=True).judge("1", "", "i CANNOT do it").label == "refusal"


def test_the_verdict_names_the_phrase_as_published():
    assert judge(ignore_case=True).judge("1", "", "i cannot").rule == "I cannot"


def test_an_empty_answer_is_unscored():
    assert judge().judge("1", "", " ").reason == "the answer is empty"


def test_how_a_list_is_searched_changes_the_fingerprint():
    assert (
        len(
            {
                judge(ignore_case=x, match=y).fingerprint
                for x in (True, False)
                for y in ("anywhere", "beginning")
            }
        )
        == 4
    )


def test_a_list_without_a_source_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nmeasures: refusal\n")
    with pytest.raises(BadInputError, match="source: missing"):
        read_named_yaml(tmp_path / "mine.yaml", PhraseList)
