"""The files of the original guide: three pickles. They are written for programs that read them; nothing here does.

routing_outputs_MODEL.pkl is `{"safe": [...], "unsafe": [...]}` with one dictionary per prompt. What it holds depends on
what was recorded, and keys say what they hold: router logits have the guide's names, anything else has others.

Always: task, id, prompt, generated_text, record, layers (true indices), experts_per_token.

- record "logits": prompt_routings and generation_routings (router logits, float32 [L, T, E]), and the arrays of
  "tokens".
- record "tokens": prompt_experts and generation_experts (chosen experts, [L, T, k]), prompt_gate_weights and
  generation_gate_weights (float16 [L, T, k]), prompt_tokens and generated_tokens (ids of the rows).
- record "counts": prompt_counts, generation_counts and decision_counts (routed tokens of each expert, [L, E]), and
  n_prompt_tokens, n_generation_tokens and n_decision_tokens; of models that think also reasoning_counts and
  n_reasoning_tokens, the part of the generation before the answer.

With single tokens of models that think, n_reasoning_tokens says how many generated rows come before the answer's first;
-1 where it never began.

The last sampled token of an answer is never routed: G generated tokens give G - 1 rows.
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.export.tables import TaskRouting, routing_of

if TYPE_CHECKING:
    from pathlib import Path

    from harness.export.export import Export, Files
    from harness.routing.tokens import TokenRouting

# The guide calls harmful prompts unsafe and benign ones safe.
_SIDES = {"benign": "safe", "harmful": "unsafe"}
# Read by every Python that transformers 5 runs on, and by older ones.
_PROTOCOL = 4


def files(what: Export) -> Files:
    """Return the guide's files."""
    # A run without routing is refused before anything is read.
    _ = what.record
    written: Files = {
        f"routing_outputs_{what.model}.pkl": lambda path: _dump(routing_outputs(what), path),
        f"risk_diff_{what.model}.pkl": partial(
            what.risk_diff.to_pickle, protocol=_PROTOCOL, compression=None
        ),
    }
    if what.conversations is not None:
        written[f"sft_dataset_{what.model}.pkl"] = partial(_dump, what.conversations)
    return written


def _dump(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(value, file, protocol=_PROTOCOL)


def routing_outputs(what: Export) -> dict[str, list[dict[str, Any]]]:
    """Return each prompt's routing, "safe" and "unsafe"; all of it in memory, as the pickle needs it."""
    outputs: dict[str, list[dict[str, Any]]] = {"safe": [], "unsafe": []}
    for of_task in routing_of(what.run, what.record):
        outputs[_SIDES[of_task.kind]] += [
            _prompt(of_task, place, what.record) for place in range(len(of_task.counts.ids))
        ]
    return outputs


def _prompt(of_task: TaskRouting, place: int, record: str) -> dict[str, Any]:
    counts, answer = of_task.counts, of_task.answers[place]
    known = {
        "task": of_task.task,
        "id": answer.id,
        "prompt": answer.prompt,
        "generated_text": answer.response,
        "record": record,
        "layers": list(counts.layers),
        "experts_per_token": counts.experts_per_token,
    }
    if of_task.tokens is not None:
        if "reasoning" in counts.stored and of_task.tokens.answer_at is not None:
            known["n_reasoning_tokens"] = int(of_task.tokens.answer_at[of_task.tokens.ids.index(answer.id)])
        return known | _token_arrays(of_task.tokens.of(answer.id), with_logits=record == "logits")
    for at, phase in enumerate(counts.stored):
        known[f"{phase}_counts"] = counts.counts[place, at].copy()
        known[f"n_{phase}_tokens"] = int(counts.tokens[place, at])
    return known


def _token_arrays(routing: TokenRouting, *, with_logits: bool) -> dict[str, Any]:
    cut = routing.prompt_tokens
    ids = routing.token_ids.tolist()
    arrays: dict[str, Any] = {"prompt_tokens": ids[:cut], "generated_tokens": ids[cut:]}
    if with_logits and routing.logits is not None:
        arrays["prompt_routings"] = np.ascontiguousarray(routing.logits[:, :cut])
        arrays["generation_routings"] = np.ascontiguousarray(routing.logits[:, cut:])
    for name, values in (("experts", routing.experts), ("gate_weights", routing.weights)):
        by_layer = values.transpose(1, 0, 2)
        arrays[f"prompt_{name}"] = np.ascontiguousarray(by_layer[:, :cut])
        arrays[f"generation_{name}"] = np.ascontiguousarray(by_layer[:, cut:])
    return arrays
