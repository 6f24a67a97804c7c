"""Routing of a run's own captured answers, written as vLLM and SGLang publish it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.runs.run import Run, read_run

Line = dict[str, Any]


def npy(array: np.ndarray) -> str:
    """Return an array as vLLM's server gives it: base64 of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def int32(array: np.ndarray) -> str:
    """Return an array as SGLang gives it: base64 of its numbers, flat."""
    return base64.b64encode(array.astype("<i4").tobytes()).decode()


def _about(row: Any) -> Line:
    return {"prompt_tokens": row.prompt_tokens, "generated_tokens": row.generated_tokens}


def _usage(row: Any) -> Line:
    total = row.prompt_tokens + row.generated_tokens
    return {
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.generated_tokens,
        "total_tokens": total,
    }


def ten_lines_of_vllm(row: Any, array: np.ndarray) -> Line:
    return {**_about(row), "response": row.response, "routed_experts": npy(array.astype(np.uint8))}


def lists(row: Any, array: np.ndarray) -> Line:
    return {**_about(row), "response": row.response, "routed_experts": array.tolist()}


def server_of_vllm(row: Any, array: np.ndarray) -> Line:
    message = {"role": "assistant", "content": row.response, "reasoning": None}
    choice = {"index": 0, "message": message, "finish_reason": row.finish_reason}
    choice["routed_experts"] = npy(array.astype(np.uint8))
    return {"response": {"object": "chat.completion", "choices": [choice], "usage": _usage(row)}}


def split_by_vllm(row: Any, array: np.ndarray) -> Line:
    choice = {"index": 0, "text": row.response, "finish_reason": row.finish_reason}
    choice["routed_experts"] = npy(array[row.prompt_tokens :].astype(np.int16))
    prompt = npy(array[: row.prompt_tokens].astype(np.int16))
    return {"response": {"choices": [choice], "usage": _usage(row), "prompt_routed_experts": prompt}}


def generate_of_sglang(row: Any, array: np.ndarray) -> Line:
    meta = {key: value for key, value in _usage(row).items() if key != "total_tokens"}
    meta |= {"finish_reason": {"type": row.finish_reason}, "routed_experts": int32(array)}
    return {"response": {"text": row.response, "meta_info": meta}}


def server_of_sglang(row: Any, array: np.ndarray) -> Line:
    choice = {"index": 0, "text": row.response, "finish_reason": row.finish_reason}
    return {
        "response": {"choices": [choice], "usage": _usage(row), "sglext": {"routed_experts": int32(array)}}
    }


FORMS: dict[str, Callable[[Any, np.ndarray], Line]] = {
    form.__name__: form
    for form in (
        ten_lines_of_vllm,
        lists,
        server_of_vllm,
        split_by_vllm,
        generate_of_sglang,
        server_of_sglang,
    )
}


def lines(run: Run, form: Callable[[Any, np.ndarray], Line]) -> Iterator[Line]:
    """Yield what a run of `--record tokens` captured, prompt after prompt."""
    for task in run.record.tasks:
        tokens = run.tokens(task.name)
        for row in run.captured_answers(task.name):
            array = tokens.of(row.id).experts.astype(np.int64)
            yield {"task": task.name, "id": row.id, "prompt": row.prompt, **form(row, array)}


def write(folder: Path, rows: list[Line]) -> Path:
    """Write lines as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recorded.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def recorded(source: Path, folder: Path, form: str = "ten_lines_of_vllm") -> Path:
    """Write a file of recorded routing from a run folder."""
    return write(folder, list(lines(read_run(source), FORMS[form])))
