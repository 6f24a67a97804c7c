"""Every selection method, from the command line to the experts that a variant acts on."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.base.files import read_json
from harness.cli.main import main
from harness.experts.select import METHODS

_COLUMN = {
    "gate_weighted": "gate_diff",
    "presence": "presence_diff",
    "per_prompt": "prompt_diff",
    "length_cut": "cut_diff",
    "harmful_use": "a_unsafe_n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("selecting") / "run"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_highest_scores_of_the_table_are_selected(folder, method):
    command = [
        "select",
        "--output",
        str(folder),
        "--limit",
        "12",
        "--record",
        "tokens",
        "--phase",
        "generation",
    ]
    assert main([*command, "--top-k", "5", "--baselines", "none", "--method", method]) == 0
    kept = read_json(folder / "variants/unsafe_experts/selection.json")
    assert (kept["method"], kept["phase"], len(kept["experts"])) == (method, "generation", 5)
    table = pd.read_parquet(folder / "experts.parquet")
    rows = table[table["phase"] == "generation"].set_index(["layer", "expert"])
    score = rows[_COLUMN.get(method, method)]
    assert score.notna().all()
    chosen = score.loc[[tuple(expert) for expert in kept["experts"]]]
    assert chosen.tolist() == sorted(score, reverse=True)[:5]
