"""Run commands of the harness again and again, killing them at moments that are asked for.

Usage: kill_driver.py ARGUMENTS OF harness, a command that is run undisturbed. Then each line of standard input is
`{"arguments": [...], "moment": MOMENT or null}`, and is answered by a line that says how that run ended. A moment is
`FUNCTION:TEXT`: the process kills itself, as `kill -9` would, when the function is entered with arguments that TEXT,
a regular expression, is found in, or after it where FUNCTION ends in `+`. Each run is a fork of this process, in which
the first run has imported everything.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from harness.cli.main import main

LIMIT_S = 300
"""A run that takes longer hangs."""

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
        signal.alarm(LIMIT_S)
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
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the runs say
    print(f"code {main(sys.argv[1:])}", file=answers)
    gc.freeze()
    for line in sys.stdin:
        print(run(**json.loads(line)), file=answers)
