import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from cosines import near_duplicates
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.data.duplicates import Likeness
from harness.data.prompts import Prompt, PromptSet, Resolved
from harness.data.sources import load_task
from harness.data.splits import make_splits
from harness.data.task import ROLES, TaskSpec, find_task

NOUNS = [
    "apple",
    "bridge",
    "candle",
    "desert",
    "engine",
    "feather",
    "guitar",
    "harbour",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "mirror",
    "needle",
]
VERBS = [
    "paint",
    "measure",
    "borrow",
    "describe",
    "polish",
    "invent",
    "forget",
    "explain",
    "balance",
    "collect",
    "deliver",
    "hide",
]


def prompt_set(name, rows, **changes):
    """Return a task of rows (text, pair, declared split), shorter rows filled up with None."""
    spec = TaskSpec.model_validate(
        {
            "name": name,
            "kind": "benign",
            "description": "d",
            "source": {"files": ["x.csv"]},
            "prompt": {"column": "q"},
            "pair_column": "pair",
            "licence": "CC0",
            "citation": "c",
            **changes,
        }
    )
    filled = [(*row, None, None)[:3] if isinstance(row, tuple) else (row, None, None) for row in rows]
    prompts = tuple(
        Prompt(str(index), text, name, "benign", pair=pair, split=split)
        for index, (text, pair, split) in enumerate(filled)
    )
    return PromptSet(spec, prompts, Resolved("files", "."))


def different(count, start=0):
    """Return texts of which no two are near-duplicates."""
    return [f"{random.Random(number).randbytes(12).hex()}" for number in range(start, start + count)]


def roles(splits, task):
    return {prompt.id: role for role, prompts in splits.prompts[task].items() for prompt in prompts}


def sizes(splits, task):
    return {role: len(prompts) for role, prompts in splits.prompts[task].items()}


def test_fractions_are_met_exactly_where_nothing_is_grouped():
    splits = make_splits([prompt_set("a", different(50))], seed=0)
    assert sizes(splits, "a") == {"identify": 10, "train": 20, "test": 20}
    assert splits.groups == 50
    other = make_splits(
        [prompt_set("a", different(50))], seed=0, fractions={"identify": 1, "train": 1, "test": 3}
    )
    assert sizes(other, "a") == {"identify": 10, "train": 10, "test": 30}


def test_the_seed_decides_and_the_order_of_tasks_does_not():
    sets = [prompt_set("a", different(40)), prompt_set("b", different(40, 30))]
    one = make_splits(sets, seed=3)
    assert make_splits(sets[::-1], seed=3).prompts == one.prompts
    assert make_splits(sets, seed=4).prompts != one.prompts


def test_matched_pairs_of_linked_tasks_serve_one_role():
    texts = different(60)
    sets = [
        prompt_set("harmful", [(text, str(i)) for i, text in enumerate(texts[:30])], pairs_with="twins"),
        prompt_set("twins", [(text, str(i)) for i, text in enumerate(texts[30:])], pairs_with="harmful"),
    ]
    splits = make_splits(sets, seed=0)
    assert roles(splits, "harmful") == roles(splits, "twins")
    assert set(roles(splits, "harmful").values()) == set(ROLES)


def test_equal_pair_values_of_unlinked_tasks_mean_nothing():
    texts = different(60)
    sets = [
        prompt_set("a", [(text, str(i)) for i, text in enumerate(texts[:30])]),
        prompt_set("b", [(text, str(i)) for i, text in enumerate(texts[30:])]),
    ]
    splits = make_splits(sets, seed=0)
    assert roles(splits, "a") != roles(splits, "b")


def test_a_limit_keeps_a_beginning_and_the_same_pairs_in_both_tasks():
    texts = different(120)
    sets = [
        prompt_set("harmful", [(text, str(i)) for i, text in enumerate(texts[:60])], pairs_with="twins"),
        prompt_set("twins", [(text, str(i)) for i, text in enumerate(texts[60:])], pairs_with="harmful"),
    ]
    five, ten = (make_splits(sets, seed=0, limit=limit) for limit in (5, 10))
    for role in ROLES:
        assert five.prompts["harmful"][role] == ten.prompts["harmful"][role][:5]
        assert [p.id for p in five.prompts["harmful"][role]] == [p.id for p in five.prompts["twins"][role]]


def test_a_task_for_testing_only_pulls_what_repeats_it_into_test():
    shared = "Where can I buy a birthday cake in Paris"
    sets = [
        prompt_set("only_test", [shared, *different(5)], roles=["test"]),
        prompt_set("all", [shared + "?", *different(30, 10)]),
    ]
    for seed in range(8):
        splits = make_splits(sets, seed)
        assert roles(splits, "all")["0"] == "test"
        assert sizes(splits, "only_test") == {"identify": 0, "train": 0, "test": 6}


def test_what_repeats_a_test_prompt_but_may_not_test_is_left_out_and_counted():
    shared = "Where can I buy a birthday cake in Paris"
    sets = [
        prompt_set("only_test", [shared, *different(5)], roles=["test"]),
        prompt_set("no_test", [shared + "?", *different(9, 10)], roles=["identify", "train"]),
    ]
    splits = make_splits(sets, seed=0)
    assert "0" not in roles(splits, "no_test")
    assert splits.dropped == {"only_test": 0, "no_test": 1}


def test_declared_test_prompts_stand_and_near_copies_of_them_are_left_out():
    rows = [
        ("Describe how to bake a loaf of bread", None, "test"),
        ("Describe how to bake a loaf of bread!", None, "train"),
        ("Describe how to bake a loaf of bread!!", None, "train"),
        *((text, None, "test") for text in different(10)),
        *((text, None, "train") for text in different(30, 20)),
    ]
    splits = make_splits([prompt_set("a", rows)], seed=0)
    given_roles = roles(splits, "a")
    assert given_roles["0"] == "test"
    assert "1" not in given_roles
    assert "2" not in given_roles
    assert splits.dropped == {"a": 2}
    # The pool of declared train prompts is divided as 0.2 to 0.4.
    assert sizes(splits, "a") == {"identify": 10, "train": 20, "test": 11}


def test_where_a_task_declares_identify_its_train_prompts_find_no_experts():
    rows = [(text, None, split) for split in ROLES for text in different(10, 10 * ROLES.index(split))]
    near_test = ("Describe how to bake a loaf of bread", None, "test")
    near_identify = ("Describe how to bake a loaf of bread!", None, "identify")
    pool = [(text, None, "train") for text in different(30, 40)]
    splits = make_splits(
        [prompt_set("all", [*rows, near_test, near_identify]), prompt_set("pool", pool)], seed=0
    )
    assert sizes(splits, "all") == {"identify": 10, "train": 10, "test": 11}
    assert splits.dropped == {"all": 1, "pool": 0}
    assert {p.id: p.split for chosen in splits.prompts["all"].values() for p in chosen} == roles(
        splits, "all"
    )
    assert sizes(splits, "pool") == {"identify": 10, "train": 20, "test": 0}


def test_only_near_copies_of_a_test_prompt_are_left_out_not_what_is_near_them():
    # Each is like the next, the ends are unlike each other.
    chain = [" ".join(NOUNS[start : start + 10]) for start in (0, 2, 4)]
    alike = {tuple(pair) for pair in near_duplicates([*chain, *different(20)]).tolist()}
    assert (0, 1) in alike
    assert (1, 2) in alike
    assert (0, 2) not in alike
    rows = [(chain[0], None, "test"), *((text, None, "train") for text in chain[1:])]
    splits = make_splits(
        [prompt_set("a", [*rows, *((text, None, "train") for text in different(20))])], seed=0
    )
    assert "1" not in roles(splits, "a")
    assert roles(splits, "a")["2"] in ("identify", "train")


def test_the_twin_of_a_declared_test_prompt_is_not_trained_on():
    texts = different(40)
    sets = [
        prompt_set(
            "harmful",
            [(texts[0], "p", "test"), *((t, None, "train") for t in texts[1:20])],
            pairs_with="twins",
        ),
        prompt_set(
            "twins",
            [(texts[20], "p", "train"), *((t, None, "train") for t in texts[21:])],
            pairs_with="harmful",
        ),
    ]
    splits = make_splits(sets, seed=0)
    assert "0" not in roles(splits, "twins")
    assert splits.dropped == {"harmful": 0, "twins": 1}


def test_what_is_near_the_left_out_twin_of_a_test_prompt_is_kept():
    texts = different(40)
    twins = [("Describe how to bake a loaf of bread", "p", "train"), "Describe how to bake a loaf of bread!"]
    sets = [
        prompt_set("harmful", [(texts[0], "p", "test"), *texts[1:20]], pairs_with="twins"),
        prompt_set("twins", [*twins, *texts[20:]], pairs_with="harmful"),
    ]
    found = {roles(make_splits(sets, seed), "twins")["1"] for seed in range(12)}
    assert found == set(ROLES)


def test_a_prompt_that_may_serve_no_role_is_left_out_and_decides_nothing():
    texts = different(30)
    sets = [
        prompt_set("barred", [(text, None, "test") for text in texts], roles=["train"]),
        prompt_set("all", texts),
    ]
    splits = make_splits(sets, seed=0)
    assert splits.dropped == {"barred": 30, "all": 0}
    assert sizes(splits, "all") == {"identify": 6, "train": 12, "test": 12}


def test_three_of_a_pair_stay_together_when_one_is_left_out():
    texts = different(30)
    rows = [
        (texts[0], "p", "train"),
        ("Describe how to bake a loaf of bread!", "p", "train"),
        (texts[1], "p", "train"),
        ("Describe how to bake a loaf of bread", None, "test"),
        *((text, None, "train") for text in texts[2:]),
    ]
    for seed in range(12):
        given_roles = roles(make_splits([prompt_set("a", rows)], seed), "a")
        assert "1" not in given_roles
        assert given_roles["0"] == given_roles["2"]


def test_a_split_too_small_names_task_role_found_and_needed():
    splits = make_splits([prompt_set("mine", different(10))], seed=0)
    assert len(splits.require("mine", "test", 4)) == 4
    with pytest.raises(BadInputError, match="task mine: split test: 4 prompts, at least 5 needed"):
        splits.require("mine", "test", 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": {"identify": -1, "train": 1, "test": 1}}, "fractions: expected shares of at least 0"),
        ({"fractions": {"identify": 0, "train": 0, "test": 0}}, "fractions: expected shares of at least 0"),
        ({"limit": 0}, "limit: expected at least 1, found 0"),
    ],
)
def test_impossible_settings_are_told(settings, message):
    with pytest.raises(BadInputError, match=message):
        make_splits([prompt_set("a", different(5))], seed=0, **settings)


def test_a_task_given_twice_is_told():
    with pytest.raises(BadInputError, match="tasks: 'a' is given twice"):
        make_splits([prompt_set("a", ["x y"]), prompt_set("a", ["z w"])], seed=0)


texts = st.builds(
    lambda verb, noun, other, end: f"{verb} the {noun} and the {other}{end}",
    st.sampled_from(VERBS),
    st.sampled_from(NOUNS),
    st.sampled_from(NOUNS[:4]),
    st.sampled_from(["", "?", " please"]),
)
rows = st.tuples(
    texts,
    st.none() | st.sampled_from("pqrstu"),
    st.none() | st.sampled_from(["test", "train", "identify"]),
)
served = st.sampled_from([["test"], ["identify", "train"], ["train"], ["identify", "train", "test"]])


@st.composite
def runs(draw):
    linked = draw(st.booleans())
    return [
        prompt_set(
            name,
            draw(st.lists(rows, min_size=1, max_size=14)),
            roles=draw(served),
            **({"pairs_with": other} if linked else {}),
        )
        for name, other in (("a", "b"), ("b", "a"), ("c", "a"))
    ]


@settings(max_examples=150, deadline=None)
@given(runs(), st.integers(0, 3))
def test_no_pair_and_no_near_duplicate_straddles_roles(sets, seed):
    splits = make_splits(sets, seed)
    linked = sets[0].spec.pairs_with is not None
    everything = sorted((p for s in sets for p in s.prompts), key=lambda prompt: (prompt.task, prompt.id))
    role_of = {(task, id): role for task in splits.prompts for id, role in roles(splits, task).items()}

    def same_role(one, other):
        found = {role_of.get((prompt.task, prompt.id)) for prompt in (one, other)} - {None}
        assert len(found) <= 1, (one, other)

    for one, other in near_duplicates([prompt.text for prompt in everything]).tolist():
        same_role(everything[one], everything[other])
    for one in everything:
        for other in everything:
            if one.pair is not None and one.pair == other.pair and (linked or one.task == other.task):
                same_role(one, other)


@settings(max_examples=100, deadline=None)
@given(runs(), st.integers(0, 3))
def test_every_prompt_serves_at_most_one_role_that_it_may_serve_and_the_rest_is_counted(sets, seed):
    splits = make_splits(sets, seed)
    for a_set in sets:
        used = Counter(p.id for chosen in splits.prompts[a_set.spec.name].values() for p in chosen)
        assert not used or max(used.values()) == 1
        assert len(used) + splits.dropped[a_set.spec.name] == len(a_set.prompts)
        for role, chosen in splits.prompts[a_set.spec.name].items():
            assert not chosen or role in a_set.spec.roles
            for prompt in chosen:
                # A declared train prompt may find experts where none are declared for that; others stand.
                assert prompt.split in (None, role) or (
                    (prompt.split, role) == ("train", "identify")
                    and all(other.split != "identify" for other in a_set.prompts)
                )


@settings(max_examples=50, deadline=None)
@given(runs(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_splits_depend_on_seed_and_prompts_only(sets, seed, shuffler):
    one = make_splits(sets, seed)
    shuffled = list(sets)
    shuffler.shuffle(shuffled)
    assert make_splits(shuffled, seed).prompts == one.prompts


@pytest.mark.shared_data
def test_public_tasks_split_together(shared_data):
    names = ("advbench", "alpaca", "jbb_harmful", "jbb_benign", "xstest_safe", "xstest_unsafe")
    splits = make_splits([load_task(find_task(name), [shared_data]) for name in names], seed=0)
    assert sizes(splits, "advbench") == {"identify": 104, "train": 208, "test": 208}
    assert sizes(splits, "xstest_safe") == {"identify": 0, "train": 0, "test": 250}
    assert roles(splits, "jbb_harmful") == roles(splits, "jbb_benign")
    assert sum(splits.dropped.values()) == 0


def test_with_a_limit_a_large_task_is_cut_to_a_seeded_sample_first(monkeypatch):
    prompts = [
        Prompt(str(i), f"{i * 7919 % 1000003} {i}", "big", "benign", split="test" if i < 40 else "train")
        for i in range(3000)
    ]
    spec = TaskSpec.model_validate(
        {
            **{"name": "big", "kind": "benign", "description": "x", "licence": "x", "citation": "x"},
            **{"source": {"files": ["x.csv"]}, "prompt": {"column": "p"}},
        }
    )
    big = PromptSet(spec, tuple(prompts), Resolved("files", "x"))
    seen = []
    monkeypatch.setattr("harness.data.splits._POOL", 200)
    monkeypatch.setattr(
        "harness.data.splits.Likeness", lambda texts: seen.append(len(texts)) or Likeness(texts)
    )
    splits = make_splits([big], seed=1, limit=5)
    assert seen == [240], "all 40 of the small split, 200 of the large one"
    assert [len(splits.prompts["big"][role]) for role in ("identify", "train", "test")] == [5, 5, 5]
    assert splits.prompts == make_splits([big], seed=1, limit=5).prompts
    assert splits.dropped["big"] < 240
    make_splits([big], seed=1, limit={"test": 5})
    assert seen[-1] == 3000, "a role without a limit gets all its prompts"


SUITE = """
import json, pathlib, random, re, time
from harness.data.prompts import Prompt, PromptSet, Resolved
from harness.data.splits import make_splits
from harness.data.task import TaskSpec

draw = random.Random(0)
words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20_000)]
base = {"description": "d", "source": {"files": ["x.csv"]}, "prompt": {"column": "q"}, "licence": "x", "citation": "c"}
shared = [f"Tell me about {' '.join(draw.choices(words, k=8))}." for _ in range(200)]
sets = []
for number in range(20):
    kind = "benign" if number % 2 else "harmful"
    texts = [*shared, *(f"Tell me about {' '.join(draw.choices(words, k=8))}." for _ in range(1050))]
    prompts = tuple(Prompt(str(at), text, f"t{number}", kind) for at, text in enumerate(texts))
    sets.append(PromptSet(TaskSpec(name=f"t{number}", kind=kind, **base), prompts, Resolved("files", "x")))
started = time.process_time()
splits = make_splits(sets, seed=0)
seconds = time.process_time() - started
role_of = {}
for roles in splits.prompts.values():
    for role, prompts in roles.items():
        for prompt in prompts:
            role_of.setdefault(prompt.text, set()).add(role)
# Of this process alone: what getrusage says may be the one's that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([seconds, peak, len(role_of), max(map(len, role_of.values()))]))
"""


@pytest.mark.slow
def test_a_suite_of_25_000_prompts_is_split_within_a_minute_and_two_gigabytes():
    done = subprocess.run([sys.executable, "-c", SUITE], capture_output=True, text=True, check=True)
    seconds, peak, texts, most_roles = json.loads(done.stdout)
    assert texts == 20 * 1050 + 200
    assert most_roles == 1, "a prompt that twenty tasks share serves one role"
    assert seconds < 60
    assert peak < 2e9
