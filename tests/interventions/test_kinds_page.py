"""The table of kinds in docs/intervention-kinds.md is what the code says: kinds, their fields, and what vLLM serves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from deltas import saved_delta

from harness.engines.vllm.kind import VLLM
from harness.interventions.base import INTERVENTIONS, Intervention, Prepared, Variant

PAGE = Path(__file__).parents[2] / "docs/intervention-kinds.md"
ROWS = {
    kind: (set(re.findall(r"`(\w+)`", fields)), vllm)
    for kind, fields, vllm in re.findall(
        r"^\| `(\w+)` \|(.*?)\|.*\| (.+) \|$", PAGE.read_text(), re.MULTILINE
    )
}
OURS = {name: kind for name, kind in INTERVENTIONS.working() if kind.__module__.startswith("harness.")}


def test_every_kind_is_there_with_its_own_fields():
    own = {name: {*kind.model_fields} - {*Intervention.model_fields} for name, kind in OURS.items()}
    assert {kind: fields for kind, (fields, _) in ROWS.items()} == own


@pytest.fixture
def fields(demo, tmp_path):
    """The fields that each kind cannot do without, files and folders too."""
    saved_delta(demo.moe.model, demo.ref.path, tmp_path / "delta")
    return {
        "system_prompt": {"system_prompt": "Decline."},
        "train_experts": {"experts": "selected"},
        "steer": {"experts": "selected"},
        "activate": {"experts": "selected", "selection": {"direction": "safe"}},
        "checkpoint": {"model": "demo"},
        "delta": {"path": tmp_path / "delta"},
        "adapter": {"path": tmp_path},
        "mask": {"path": tmp_path / "mask.json"},
        "prune": {"share": 0.25},
        "steer_residual": {"depth": 0.5, "strength": 1.0},
    }


def test_what_vllm_serves_is_what_the_page_says(fields, tmp_path):
    def reason(name: str) -> str | None:
        spec = {"name": "mine", "description": "Mine.", "intervention": name, **fields.get(name, {})}
        return VLLM.why_not_servable(Prepared(Variant("mine", OURS[name].model_validate(spec))))

    masks = []
    for content in ({"silence": [[1, 2]]}, {"activate": [[1, 2]]}):
        (tmp_path / "mask.json").write_text(json.dumps(content))
        masks.append(reason("mask"))
    served = {name: "no" if reason(name) else "yes" for name in OURS}
    assert masks[0] is None
    assert "use --engine transformers" in str(masks[1])
    assert {kind: vllm for kind, (_, vllm) in ROWS.items()} == served | {"mask": "`silence` only"}
