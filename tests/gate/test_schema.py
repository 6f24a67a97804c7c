"""What a gates file may say."""

from __future__ import annotations

import pytest

from harness.base.errors import BadInputError
from harness.base.schema import read_yaml
from harness.gate.schema import GateFile

REFUSAL = {"name": "g", "metric": "refusal_rate", "task": "demo_harmful"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (REFUSAL, "expected one bound of at_least"),
        ({**REFUSAL, "at_least": 0.9, "at_most": 0.95}, "found at_least and at_most"),
        ({**REFUSAL, "at_least": 95}, "at_least is a fraction of 1, found 95"),
        ({**REFUSAL, "at_most": 5}, "at_most is a fraction of 1, found 5"),
        ({**REFUSAL, "at_least": 0.9, "against": "base"}, "at_least goes with no against"),
        ({**REFUSAL, "above_by": 0.1}, "above_by goes with a value for against"),
        ({**REFUSAL, "at_least": 1}, "at_least 1 cannot be shown, however many samples there are"),
        ({**REFUSAL, "at_most": 0}, "at_most 0 cannot be shown"),
        ({**REFUSAL, "at_leest": 0.9}, "at_leest"),
        ({"name": "g", "metric": "refusal_rate", "at_least": 0.9}, "task is missing"),
        ({"name": "g", "metric": "frozen_unchanged", "at_least": 0.9}, "takes no at_least"),
        (
            {"name": "g", "metric": "unscored", "task": "t", "at_most": 1.5},
            "expected at_most with a whole number",
        ),
        ({**REFUSAL, "at_least": float("nan")}, "finite"),
        ({**REFUSAL, "name": "a\nb", "at_least": 0.9}, "name"),
    ],
)
def test_a_gate_that_says_too_much_or_too_little_is_refused(gates, row, message):
    with pytest.raises(BadInputError, match=message) as caught:
        read_yaml(gates(row), GateFile)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"), [({"confidence": 0.5}, "confidence"), ({"confidense": 0.9}, "confidense")]
)
def test_settings_are_checked_too(gates, settings, message):
    with pytest.raises(BadInputError, match=message):
        read_yaml(gates({**REFUSAL, "at_least": 0.9}, **settings), GateFile)


def test_two_gates_of_one_name_and_a_file_without_gates_are_refused(gates):
    row = {**REFUSAL, "at_least": 0.9}
    with pytest.raises(BadInputError, match="two gates are called 'g'"):
        read_yaml(gates(row, row), GateFile)
    with pytest.raises(BadInputError, match="gates"):
        read_yaml(gates(), GateFile)


def test_a_missing_file_and_one_that_is_no_yaml_are_named(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.yaml"):
        read_yaml(tmp_path / "none.yaml", GateFile)
    (tmp_path / "bad.yaml").write_text("gates: [")
    with pytest.raises(BadInputError, match=r"bad\.yaml"):
        read_yaml(tmp_path / "bad.yaml", GateFile)


def test_the_demo_s_gates_are_valid():
    from harness.base.content import content_folder

    names = [
        gate.name
        for gate in read_yaml(content_folder("baselines") / "reference" / "demo.yaml", GateFile).gates
    ]
    assert len(names) == 9
