"""Run the demo's main job again and again, killing it at another moment each time; then once to the end.

Usage: kill_driver.py FOLDER MOMENT... -- ARGUMENTS OF harness. Each moment is `FUNCTION:TEXT`: the process
kills itself, as `kill -9` would, when the function is entered with arguments that TEXT, a regular expression,
is found in, or after it where FUNCTION ends in `+`. Prints one line a run. Everything is imported once, and each
run is a fork of that.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import lm_eval.evaluator  # noqa: F401
import pandas as pd  # noqa: F401

import harness.capability.lm_eval
import harness.training.loop  # noqa: F401
from harness.cli.main import main
from harness.pipeline import pipeline  # noqa: F401

PLACES = {
    "batch": "harness.runs.journal:BatchJournal.finish",
    "counts": "harness.pipeline.answer:save_routing",
    "collect": "harness.pipeline.answer:_collect",
    "whole": "harness.base.files:write_whole",
    "step": "harness.training.loop:_accumulate",
    "checkpoint": "harness.training.resume:write_whole",
    "merge": "harness.checkpoints.merge:write_merged",
    "compare": "harness.pipeline.train:frozen_unchanged",
    "capability": "harness.capability.lm_eval:run_capability",
    "save": "harness.runs.run_folder:write_json",
    "summary": "harness.report.write:write_summary",
}


def arm(moment: str) -> None:
    """Make the named function kill the process."""
    function, _, text = moment.partition(":")
    place = PLACES[function.removesuffix("+")]
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        # A journal is known by its folder.
        given = " ".join(str(getattr(arg, "folder", arg)) for arg in (*args, *kwargs.values()))
        fatal = re.search(text, given) is not None
        if fatal and not function.endswith("+"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def run(arguments: list[str], moment: str | None) -> str:
    """Run in a fork; returns how it ended."""
    child = os.fork()
    if not child:
        try:
            if moment is not None:
                arm(moment)
            code = main(arguments)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    split = sys.argv.index("--")
    moments, harness_arguments = sys.argv[1:split], sys.argv[split + 1 :]
    for chosen in (*moments, None):
        print(f"{chosen}: {run(harness_arguments, chosen)}", file=sys.stderr, flush=True)
