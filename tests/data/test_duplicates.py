import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.duplicates import group_labels, near_duplicates, nearest_cosine

PROMPTS = [
    "Write a short poem about the sea",
    "Write a short poem about the sea, please",
    "Name three rivers in France",
    "How long does an egg have to boil?",
    "WRITE a  short poem about the sea",
]


def pairs(texts, threshold=0.7):
    return {(int(one), int(other)) for one, other in near_duplicates(texts, threshold)}


def test_prompts_that_differ_in_a_word_case_or_spaces_are_near_duplicates():
    assert pairs(PROMPTS) == {(0, 1), (0, 4), (1, 4)}


def test_a_threshold_of_one_finds_equal_texts_only():
    assert pairs(PROMPTS, 1.0) == {(0, 4)}


def test_cosines_are_those_of_a_dense_computation():
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = ["red", "green", "blue", "small", "large", "house", "garden", "river"]
    texts = [f"{a} {b} {c}" for a in words for b in words for c in words[:4]] * 3
    assert len(texts) > 512  # more than one block of rows
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform(texts).toarray()
    alike = np.triu(vectors @ vectors.T >= 0.7 - 1e-9, k=1)
    assert pairs(texts) == set(zip(*(indices.tolist() for indices in alike.nonzero()), strict=True))


@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=8))
def test_equal_texts_are_always_found_and_a_pair_is_given_once(texts):
    found = near_duplicates(texts)
    assert found.shape[1] == 2
    assert (found[:, 0] < found[:, 1]).all()
    assert len(pairs(texts)) == len(found)
    equal = {(i, j) for j in range(len(texts)) for i in range(j) if texts[i] == texts[j]}
    assert equal <= pairs(texts)


def test_chained_pairs_are_one_group():
    labels = group_labels(6, np.array([[0, 1], [1, 4], [2, 3]]))
    assert labels[0] == labels[1] == labels[4]
    assert labels[2] == labels[3]
    assert len(set(labels.tolist())) == 3


@pytest.mark.shared_data
def test_groups_of_advbench_at_two_thresholds(shared_data):
    import csv

    with (shared_data / "advbench" / "harmful_behaviors.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["goal"] for row in csv.DictReader(file)]
    largest = [int(np.bincount(group_labels(520, near_duplicates(texts, t))).max()) for t in (0.5, 0.7)]
    assert largest == [196, 15]


def test_the_nearest_of_other_texts_is_found_for_each():
    cosines = nearest_cosine(PROMPTS, [PROMPTS[0], PROMPTS[2]])
    assert cosines[[0, 2, 4]].tolist() == pytest.approx([1, 1, 1])
    assert 0.6 < cosines[1] < 0.99
    assert cosines[3] < 0.2
