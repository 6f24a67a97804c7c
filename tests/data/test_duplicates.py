import subprocess
import sys

import numpy as np
import pytest
from cosines import cosines, near_duplicates
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.duplicates import Likeness, group_labels, near_duplicate_groups, near_duplicates_of

PROMPTS = [
    "Write a short poem about the sea",
    "Write a short poem about the sea, please",
    "Name three rivers in France",
    "How long does an egg have to boil?",
    "WRITE a  short poem about the sea",
]


def by_definition(texts, threshold=0.7):
    return group_labels(len(texts), near_duplicates(texts, threshold)).tolist()


def test_prompts_that_differ_in_a_word_case_or_spaces_are_near_duplicates():
    assert near_duplicate_groups(PROMPTS).tolist() == [0, 0, 1, 2, 0]


def test_a_threshold_of_one_finds_equal_texts_only():
    assert near_duplicate_groups(PROMPTS, threshold=1.0).tolist() == [0, 1, 2, 3, 0]


def test_links_join_what_is_unlike():
    assert near_duplicate_groups(PROMPTS, np.array([[2, 3]])).tolist() == [0, 0, 1, 1, 0]


def test_texts_of_a_grid_of_words_are_grouped_as_by_the_definition():
    words = ["red", "green", "blue", "small", "large", "house", "garden", "river"]
    texts = [f"{a} {b} {c}" for a in words for b in words for c in words[:4]] * 5
    for threshold in (0.5, 0.7, 0.9):
        assert near_duplicate_groups(texts, threshold=threshold).tolist() == by_definition(texts, threshold)


WORDS = st.lists(st.text("abcdef", min_size=1, max_size=7), min_size=1, max_size=10)


@st.composite
def templated(draw):
    """Texts that fill templates with words, as generated prompt sets do, and a few of no template."""
    templates = draw(st.lists(WORDS.map(" ".join), min_size=1, max_size=5))
    slots = draw(st.lists(WORDS.map(" ".join), min_size=1, max_size=8))
    texts = [f"{template} {slot}" for template in templates for slot in slots]
    return draw(st.permutations(texts + draw(st.lists(st.text(min_size=1, max_size=12).filter(str.strip)))))


@settings(max_examples=200, deadline=None)
@given(templated(), st.sampled_from([0.3, 0.5, 0.7, 0.7, 0.9, 1.0]), st.data())
def test_groups_and_neighbours_are_those_of_all_cosines(texts, threshold, data):
    likeness = Likeness(texts, threshold)
    assert likeness.groups().tolist() == by_definition(texts, threshold)
    among, others = (
        np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
        for _ in range(2)
    )
    alike = cosines(texts) >= threshold - 1e-9
    np.fill_diagonal(alike, False)
    pairs = np.argwhere(np.triu(alike) & among[:, None] & among)
    assert likeness.groups(among).tolist() == group_labels(len(texts), pairs).tolist()
    assert likeness.beside(among, others).tolist() == (among & (alike & others).any(axis=1)).tolist()


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
    for threshold, largest in ((0.5, 196), (0.7, 15)):
        groups = near_duplicate_groups(texts, threshold=threshold)
        assert groups.tolist() == by_definition(texts, threshold)
        assert np.bincount(groups).max() == largest


def test_texts_near_any_other_are_found():
    assert near_duplicates_of(PROMPTS, [PROMPTS[0], PROMPTS[2]], 0.5).tolist() == [
        True,
        True,
        True,
        False,
        True,
    ]


MEASURED = """
import pathlib, random, re
from harness.data.duplicates import near_duplicate_groups
near_duplicate_groups(["a warm start", "of the libraries"])
draw = random.Random(0)
words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 10))) for _ in range(400)]
templates = [" ".join(draw.choices(words, k=14)) + " {} and {}" for _ in range(40)]
texts = [draw.choice(templates).format(*draw.choices(words[:30], k=2)) for _ in range(20_000)]
groups = near_duplicate_groups(texts)
# Of this process alone: what getrusage says may be the one's that started it.
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1], groups.max() + 1)
"""


@pytest.mark.slow
def test_twenty_thousand_templated_prompts_are_grouped_in_a_gigabyte():
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    kilobytes, groups = map(int, done.stdout.split())
    assert kilobytes * 1024 < 1e9
    assert 1 <= groups < 20_000
