"""The files of benchmarks/gpu.py as Markdown tables, each figure beside its aim."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = ("training", "capture", "peers", "generation", "stages", "ideas")

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]


def number(name: str, form: str, scale: float = 1.0) -> Callable[[Row], str]:
    """Return what writes one number of a row, where it has it."""
    return lambda row: format(scale * row[name], form) if name in row else ""


def ratio(row: Row) -> str:
    """Write a ratio with its interval and pairs."""
    if "ratio" not in row:
        return ""
    return f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f}; {row['pairs']})"


def at_ceiling(row: Row) -> str:
    """Write the share of the tokens a second that the device's own ceiling allows."""
    if not row.get("tokens_per_second") or not row.get("tokens_per_second_at_ceiling"):
        return ""
    return f"{row['tokens_per_second'] / row['tokens_per_second_at_ceiling']:.0%}"


def note(row: Row) -> str:
    """Write a row's note."""
    return str(row.get("note", ""))


_STEPS: Columns = {
    "batch x tokens": lambda row: row["size"],
    "variant": lambda row: row["variant"],
    "layers": lambda row: str(row.get("layers", "all")),
    "million trained": number("trained", ",.2f", 1e-6),
    "peak GiB": number("peak_gib", ".2f"),
    "x weights": number("peak_over_weights", ".3f"),
    "s/step": number("seconds", ".3f"),
    "tokens/s": number("tokens_per_second", ",.0f"),
    "of the ceiling": at_ceiling,
    "ratio (95 %; pairs)": ratio,
    "first step, s": number("first_step_seconds", ".1f"),
    "note": note,
}
COLUMNS: Mapping[str, Columns] = {
    "training": {name: cell for name, cell in _STEPS.items() if name != "layers"},
    "peers": {name: cell for name, cell in _STEPS.items() if name != "of the ceiling"},
    "capture": {
        "what": lambda row: row["kind"],
        "prompts x tokens": lambda row: row["size"],
        "s without": number("baseline_seconds", ".4f"),
        "added ms": number("added_ms", ".2f"),
        "ratio (95 %; pairs)": ratio,
        "note": note,
    },
    "generation": {
        "batch": lambda row: str(row["batch"]),
        "way": lambda row: row["way"],
        "s": number("seconds", ".2f"),
        "tokens/s": number("tokens_per_second", ",.0f"),
        "first call, s": number("first_seconds", ".1f"),
        "equal tokens": number("equal_tokens", ".1%"),
        "answers": number("equal_answers", ".0%"),
        "first": number("equal_first", ".0%"),
        "note": note,
    },
    "stages": {
        "stage": lambda row: row["stage"],
        "measured, s": number("measured_seconds", ".1f"),
        "by the model, s": number("model_seconds", ".1f"),
        "measured / model": number("measured_over_model", ".2f"),
        "note": note,
    },
    "ideas": {
        "kernel": lambda row: str(row["kernel"])[:90].replace("|", "/"),
        "calls": lambda row: f"{row['calls']:,}",
        "ms": number("ms", ".1f"),
        "share": number("share", ".1%"),
    },
}
# What describes the run, and what is told of a part.
_WHERE = ("gpu", "machine", "shape", "torch", "transformers", "cuda", "date", "commit", "seeds", "allocator")
_TOLD = (
    *("seconds", "budget", "tflops", "copy_tb_per_second", "weights_gib", "trained_experts", "peft_version"),
    *(
        "first_compiled_steps_seconds",
        "read_seconds",
        "read_seconds_counted",
        "step_seconds",
        "step_seconds_counted",
    ),
    *("device_busy_seconds", "kernels", "note"),
)


def table(columns: Columns, rows: Iterable[Row]) -> str:
    """Return a Markdown table, without columns that are empty throughout."""
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    kept = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    head = list(columns)
    lines = [[head[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict(found: float | None, aim: float, at_most: bool, form: str = ".3f") -> tuple[str, str]:
    """Return a figure and whether it meets its aim, or by how much it misses it."""
    if found is None:
        return "not measured", "not measured"
    met = found <= aim if at_most else found >= aim
    return format(found, form), "met" if met else f"missed by {abs(found - aim) / aim:.1%}"


def aims(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of aims, for the shape that they are meant for."""
    steps = results.get("training", {}).get("rows", [])

    def bank(figure: str, size: str, variants: Sequence[str]) -> list[float]:
        return [
            row[figure]
            for row in steps
            if row["size"] == size and row["variant"] in variants and figure in row
        ]

    plain, both = ("bank",), ("bank", "bank, compiled")
    best = max(
        (row for row in steps if row["variant"] != "frozen" and "tokens_per_second" in row),
        key=lambda row: row["tokens_per_second"],
        default={},
    )
    fits = bank("seconds", "64x512", both) and bank("peak_gib", "64x512", both)
    tried = (
        "missed"
        if any(row["size"] == "64x512" and row["variant"] in both for row in steps)
        else "not measured"
    )
    lines = [
        ("peak, bank, 4 x 512", "at most 1.06 x the weights",
         *verdict(next(iter(bank("peak_over_weights", "4x512", plain)), None), 1.06, True)),
        ("step, bank, 16 x 512", "at most 1.00 x the floor",
         *verdict(next(iter(bank("ratio", "16x512", plain)), None), 1.0, True)),
        ("step, bank, 16 x 512, compiled or not", "at most 1.00 x the floor",
         *verdict(min(bank("ratio", "16x512", both), default=None), 1.0, True)),
        (f"tokens/s, best setting ({best.get('variant', '')}, {best.get('size', '')})", "20,000",
         *verdict(best.get("tokens_per_second"), 20_000, False, ",.0f")),
        ("64 x 512", "fits", f"{min(fits):.2f} GiB" if fits else tried, "met" if fits else tried),
        *((f"{row['kind']}, with counts", "at most 1.01 x without", *verdict(row.get("ratio"), 1.01, True))
          for row in results.get("capture", {}).get("rows", [])),
    ]  # fmt: skip
    return "\n".join(
        f"| {' | '.join(line)} |" for line in [("what", "aim", "found", ""), ("---",) * 4, *lines]
    )


def render(folder: Path) -> str:
    """Return all of a folder's files as Markdown."""
    files = {name: folder / f"{name}.json" for name in PARTS}
    results = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    if not results:
        return f"{folder} holds no results"
    first = next(iter(results.values()))
    blocks = [
        ", ".join(f"{name} {first[name]}" for name in _WHERE if first.get(name)),
        "## Aims",
        aims(results),
    ]
    if first["shape"] != "qwen3-30b":
        blocks[1:] = ["A rehearsal at a tiny shape: its figures say nothing of the aims."]
    for name, result in results.items():
        blocks.append(f"## {name}{'' if result['finished'] else ' (not finished)'}")
        blocks.append("; ".join(f"{fact} {_short(result[fact])}" for fact in _TOLD if fact in result))
        blocks.append(table(COLUMNS[name], result["rows"]))
        blocks += [f"Error: {error[:600]}" for error in result["errors"]]
    return "\n\n".join(blocks)


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
