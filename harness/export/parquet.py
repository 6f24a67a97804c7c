"""The same tables as Parquet and JSON lines, which every data tool reads and which cannot hold code.

routing_outputs_MODEL.parquet has one row for each prompt, token and layer: kind, task, id, phase (prompt or
generation; of models that think reasoning and answer in its place), place (0 is the first generated token, prompt
tokens are negative), token_id, layer, experts and gate_weights (lists of k), and logits (a list of E) where they were
recorded. With counts alone it has one row for each prompt, phase and layer: kind, task, id, phase, tokens, layer,
counts (a list of E).

answers_MODEL.jsonl has what was asked and answered: kind, task, id, prompt, generated_text.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.files import write_jsonl
from harness.export.tables import TaskRouting, routing_of
from harness.routing.counts import STORED_PHASES

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from harness.export.export import Export, Files
    from harness.routing.tokens import RoutedTokens


def files(what: Export) -> Files:
    """Return the Parquet and JSONL files."""
    # A run without routing is refused before anything is read.
    _ = what.record
    written: Files = {
        f"routing_outputs_{what.model}.parquet": partial(_write_routing, what),
        f"answers_{what.model}.jsonl": partial(_write_answers, what),
        f"risk_diff_{what.model}.parquet": partial(what.risk_diff.to_parquet, index=False),
    }
    if what.conversations is not None:
        rows = what.conversations
        written[f"sft_dataset_{what.model}.jsonl"] = lambda path: write_jsonl(path, rows)
    return written


def _write_routing(what: Export, path: Path) -> None:
    from pyarrow import parquet

    writer = None
    try:
        for of_task in routing_of(what.run, what.record):
            tokens = of_task.tokens
            table = _counted(of_task) if tokens is None else _single(of_task, tokens, what.record == "logits")
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_answers(what: Export, path: Path) -> None:
    write_jsonl(
        path,
        (
            {
                "kind": of_task.kind,
                "task": of_task.task,
                "id": answer.id,
                "prompt": answer.prompt,
                "generated_text": answer.response,
            }
            for of_task in routing_of(what.run, "counts")
            for answer in of_task.answers
        ),
    )


def _counted(of_task: TaskRouting) -> pa.Table:
    counts = of_task.counts
    phases, layers = len(counts.stored), len(counts.layers)
    n = len(counts.ids)
    return _table(
        of_task,
        np.repeat(np.arange(n), phases * layers),
        {
            "phase": _names(counts.stored, np.tile(np.repeat(np.arange(phases), layers), n)),
            "tokens": np.repeat(counts.tokens[:, :phases].ravel(), layers),
            "layer": np.tile(np.asarray(counts.layers, dtype=np.int32), n * phases),
            "counts": _lists(counts.counts[:, :phases]),
        },
    )


def _single(of_task: TaskRouting, tokens: RoutedTokens, with_logits: bool) -> pa.Table:
    counts = of_task.counts
    layers = len(counts.layers)
    names: tuple[str, ...] = ("prompt", "generation")
    phases = (tokens.places >= 0).astype(np.int64)
    if counts.stored == STORED_PHASES:
        names = ("prompt", "reasoning", "answer")
        phases += tokens.answer_places >= 0
    columns = {
        "phase": _names(names, np.repeat(phases, layers).astype(np.int64)),
        "place": np.repeat(tokens.places.astype(np.int32), layers),
        "token_id": np.repeat(tokens.token_ids, layers),
        "layer": np.tile(np.asarray(counts.layers, dtype=np.int32), len(tokens.token_ids)),
        "experts": _lists(tokens.experts.astype(np.int32)),
        "gate_weights": _lists(tokens.weights.astype(np.float32)),
    }
    if with_logits and tokens.logits is not None:
        columns["logits"] = _lists(tokens.logits)
    return _table(of_task, np.repeat(tokens.samples, layers), columns)


def _table(of_task: TaskRouting, samples: np.ndarray, columns: dict[str, Any]) -> pa.Table:
    import pyarrow as pa

    every = np.zeros(len(samples), dtype=np.int64)
    return pa.table(
        {
            "kind": _names((of_task.kind,), every),
            "task": _names((of_task.task,), every),
            "id": _names(of_task.counts.ids, samples),
            **columns,
        }
    )


def _names(names: tuple[str, ...], places: np.ndarray) -> Any:
    """Return a column of names, each stored once."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32)), pa.array(names, pa.string()))


def _lists(values: np.ndarray) -> Any:
    """Return a column of lists of equal length, the array's last dimension."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[-1])
