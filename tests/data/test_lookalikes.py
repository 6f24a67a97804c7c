"""The prompts of `lookalikes` and `lookalikes_plain`, as docs/lookalikes.md describes them."""

import csv
import json
import re
from collections import Counter

import pytest
from cosines import near_duplicates

from harness.data.sources import load_task
from harness.data.splits import make_splits
from harness.data.task import ROLES, find_task
from harness.judges.language import why_not_english
from tools.split_lookalikes import FILES, FOLDER, splits_of

NAMES = ("lookalikes", "lookalikes_plain")
ALARMING = re.compile(
    r"\b(abort|abus|arrest|arson|assassin|assault|attack|bleach|bleed|blood|bomb|burn|conspira|convict|corpse|crim(e|inal)"
    r"|cruel|crush|danger|dead|deadly|death|destroy|die[ds]?\b|drown|drug|execut|explo|fight|fir(e|ing)\b|forge[dr]|fraud"
    r"|gun|hack|hang|harm|heist|hit\b|hostage|hunt|injur|jail|kidnap|kill|knife|lethal|malware|massacr|murder|poison"
    r"|prison|punch|ransom|rifle|rob\b|robber|scam|shoot|shot|slaughter|slave|smash|spy|stab|stalk|steal|stole|strang"
    r"|suicid|sword|terror|thie[fv]|threat|tortur|toxic|venom|violen|war\b|weapon)",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def sets():
    return [load_task(find_task(name)) for name in NAMES]


@pytest.fixture(scope="module")
def prompts(sets):
    return [prompt for each in sets for prompt in each.prompts]


def test_there_are_300_pairs_of_18_kinds(sets):
    lookalikes, plain = (
        {prompt.pair: (prompt.category, prompt.split) for prompt in each.prompts} for each in sets
    )
    assert lookalikes == plain
    assert len(lookalikes) == 300
    assert Counter(Counter(kind for kind, _ in lookalikes.values()).values()) == {17: 12, 16: 6}


def test_the_shares_of_the_roles_hold_in_every_kind(sets):
    prompts = sets[0].prompts
    assert Counter(prompt.split for prompt in prompts) == {"identify": 60, "train": 120, "test": 120}
    by_kind = Counter((prompt.category, prompt.split) for prompt in prompts)
    kinds = {prompt.category for prompt in prompts}
    assert {by_kind[kind, "identify"] for kind in kinds} == {3, 4}
    assert {by_kind[kind, role] for kind in kinds for role in ("train", "test")} == {6, 7}


def test_the_splits_are_those_of_the_script():
    rows = [
        json.loads(line)
        for name in FILES
        for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()
    ]
    assert [row["split"] for row in rows] == splits_of(rows)


def test_a_run_uses_every_prompt_in_its_declared_role(sets):
    splits = make_splits(sets, seed=0)
    assert splits.dropped == dict.fromkeys(NAMES, 0)
    for name in NAMES:
        for role in ROLES:
            assert {prompt.split for prompt in splits.prompts[name][role]} == {role}


def test_no_two_prompts_are_near_duplicates_except_within_a_pair(prompts):
    alike = near_duplicates([prompt.text for prompt in prompts])
    strangers = [
        (prompts[one].text, prompts[other].text)
        for one, other in alike.tolist()
        if prompts[one].pair != prompts[other].pair
    ]
    assert strangers == []
    assert len(alike) == 31  # as docs/lookalikes.md says


def test_plain_partners_have_no_alarming_word_and_most_lookalikes_have_one(sets):
    lookalikes, plain = ([prompt.text for prompt in each.prompts] for each in sets)
    assert [text for text in plain if ALARMING.search(text)] == []
    assert sum(ALARMING.search(text) is not None for text in lookalikes) > 200


def test_every_prompt_is_read_as_english(prompts):
    assert {
        prompt.text: why_not_english(prompt.text) for prompt in prompts if why_not_english(prompt.text)
    } == {}


@pytest.mark.shared_data
def test_no_prompt_is_near_one_of_a_public_set(prompts, shared_data):
    public = []
    for path, column in {
        "advbench/harmful_behaviors.csv": "goal",
        "jailbreakbench/harmful-behaviors.csv": "Goal",
        "jailbreakbench/benign-behaviors.csv": "Goal",
        "xstest/xstest_prompts.csv": "prompt",
    }.items():
        with (shared_data / path).open(encoding="utf-8", newline="") as file:
            public += [row[column] for row in csv.DictReader(file)]
    for path in sorted((shared_data / "alpaca").glob("*.json")):
        public += [row["instruction"] for row in json.loads(path.read_text(encoding="utf-8"))]
    texts = [*(prompt.text for prompt in prompts), *public]
    assert len(public) > 3000
    near = [
        (texts[one], texts[other])
        for one, other in near_duplicates(texts).tolist()
        if one < len(prompts) <= other
    ]
    assert near == []
