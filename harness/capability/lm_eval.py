"""Capability of the served model, by lm-eval.

lm-eval's request cache is never used: its keys leave the model out, so a variant would get another's answers.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import itertools
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, HarnessError, first_line
from harness.base.files import full_disk_named
from harness.base.fingerprint import fingerprint
from harness.capability.prepare import prepare_tasks
from harness.capability.results import CapabilityResult, capability_result
from harness.capability.scoring import scoring_of
from harness.capability.tasks import (
    LONGEST_WRITTEN,
    list_capability_tasks,
    resolve_capability_tasks,
    with_members,
    written_of_sets,
)
from harness.engines.lm_eval import replaced

if TYPE_CHECKING:
    from harness.engines.base import Engine
    from harness.engines.unanswered import Unanswered

_BOOTSTRAPS = 1000


def check_capability_tasks(
    names: Sequence[str], include: Sequence[Path] = (), data_dirs: Sequence[Path] = ()
) -> dict[str, str]:
    """Return the tasks to measure: each one's own name and a fingerprint of the files it reads.

    The fingerprint of lm-eval's own tasks is lm-eval's version, and how a set asks them where it asks otherwise.

    Raises:
        BadInputError: an unknown task, or a data file that no --data-dir has.
    """
    lm_eval_version = f"lm-eval {importlib.metadata.version('lm_eval')}"
    resolved = resolve_capability_tasks(names, include, data_dirs)
    ours, written = list_capability_tasks(include), written_of_sets(names)
    of_set = f"{lm_eval_version}, as a chat, {LONGEST_WRITTEN} tokens"
    return {
        name: fingerprint([member.fingerprint(data_dirs) for member in with_members(task, ours)])
        if task
        else (of_set if name in written else lm_eval_version)
        for name, task in resolved.items()
    }


def require_data(names: Sequence[str], include: Sequence[Path] = (), data_dirs: Sequence[Path] = ()) -> None:
    """Refuse lm-eval's own tasks whose data neither the hub nor its cache gives; what the hub gives is kept there.

    Raises:
        BadInputError: names the task, and the files to put under --data-dir where one of ours can take its place.
    """
    import datasets

    resolved = resolve_capability_tasks(names, include, data_dirs)
    theirs = [name for name, task in resolved.items() if task is None]
    if not theirs:
        return
    stand_ins = {task.notes.stands_in_for: task for task in list_capability_tasks(include).values()}
    with _quiet():
        tasks = _lm_evals_tasks()
        for name in theirs:
            try:
                with full_disk_named(Path(datasets.config.HF_DATASETS_CACHE)):
                    tasks.load([name])
            except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
                files = stand_ins[name].files() if name in stand_ins else []
                instead = (
                    f"give --data-dir with a folder that holds {', '.join(files)}"
                    if files
                    else "`harness tasks list` has those that need no hub"
                )
                reason = " ".join(str(error).split()) or type(error).__name__
                raise BadInputError(
                    f"capability task {name}: its data can't be had ({reason}); {instead}"
                ) from error
            except ImportError as error:
                raise BadInputError(
                    f"capability task {name}: it needs the package '{error.name}', which is not installed: "
                    f"pip install 'lm-eval[{name}]' where lm-eval has such an extra, or pip install {error.name}"
                ) from error
            except KeyError as error:
                raise BadInputError(f"unknown capability task: {error.args[0]}") from error


def run_capability(
    engine: Engine | Unanswered,
    tasks: Sequence[str],
    *,
    include: Sequence[Path] = (),
    data_dirs: Sequence[Path] = (),
    limit: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    num_fewshot: int | None = None,
    apply_chat_template: bool | None = None,
    system_prompt: str | None = None,
    description: str = "capability",
) -> dict[str, CapabilityResult]:
    """Measure the model that an engine serves at the moment on lm-eval tasks.

    Args:
        engine: what answers; its tokenizer is left as it is.
        tasks: names of our tasks (`list_capability_tasks`) or of lm-eval's own.
        include: folders with more task files.
        data_dirs: folders with copies of the public sets, the first that has a file wins.
        limit: items of each task; all of them by default.
        batch_size: requests in one forward pass.
        seed: every seed of lm-eval; the global random states are set too.
        num_fewshot: worked examples before each item; by default what each task's file says.
        apply_chat_template: send items as chat messages; by default what each task's file says (no, if nothing). What a
            set has a model write is sent so by default where the tokenizer has a chat template, with a longer answer.
        system_prompt: put before every item.
        description: of the progress bar.

    Returns:
        Results by the tasks' own names ("piqa_local", where "piqa" was asked for and ours replaced it).

    Raises:
        BadInputError: an unknown task, a missing or wrong data file, a model without a chat template for tasks
            that need one.
        HarnessError: lm-eval failed, or the model gave log-likelihoods that are no numbers.
    """
    resolved = resolve_capability_tasks(tasks, include, data_dirs)
    if not resolved:
        return {}
    ours = list_capability_tasks(include)
    needed = [member for task in resolved.values() if task for member in with_members(task, ours)]

    written, has_template = written_of_sets(tasks), bool(engine.chat.tokenizer.chat_template)

    def chat(name: str) -> bool:
        task = resolved[name]
        from_file = task is not None and task.notes.apply_chat_template
        by_default = from_file or (name in written and has_template)
        return by_default if apply_chat_template is None else apply_chat_template

    if any(map(chat, resolved)) and not has_template:
        raise BadInputError(
            "the tokenizer has no chat template, but capability tasks are to be sent as chats"
        )
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    how = {"limit": limit, "num_fewshot": num_fewshot, "system_instruction": system_prompt}
    measured: dict[str, CapabilityResult] = {}
    thinking = engine.chat.thinking.in_words()
    with tempfile.TemporaryDirectory(prefix="harness-capability-") as folder, _quiet():
        prepare_tasks({task.name: task for task in needed}.values(), data_dirs, Path(folder))
        lm = engine.lm_eval_model(batch_size, description)
        for is_ours, as_chat in itertools.product((True, False), repeat=2):
            together = {
                name: task
                for name, task in resolved.items()
                if (task is not None, chat(name)) == (is_ours, as_chat)
            }
            if not together:
                continue
            lm.as_chat = as_chat
            results, loaded = _evaluate(
                lm,
                list(together),
                _task_manager(folder if is_ours else None),
                longer=written if as_chat else set(),
                apply_chat_template=as_chat,
                **how,
                **dict.fromkeys(seeds, seed),
            )
            for name, task in together.items():
                asked = task.notes.metric if task else None
                result = capability_result(name, results, scoring_of(name, loaded), asked)
                measured[name] = replace(result, thinking=thinking if as_chat else None)
    return {name: measured[name] for name in resolved}


def _task_manager(folder: str | None) -> Any:
    from lm_eval.tasks import TaskManager

    return _lm_evals_tasks() if folder is None else TaskManager(include_path=folder, include_defaults=False)


@functools.cache
def _lm_evals_tasks() -> Any:
    """Index lm-eval's own tasks: 20 s, so once for all variants, and never when only ours are asked for."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _evaluate(
    lm: Any, names: list[str], task_manager: Any, longer: Collection[str], **how: Any
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return lm-eval's results, and the tasks and groups that it made them with; answers to some may be `longer`."""
    import datasets
    import torch
    from lm_eval import simple_evaluate

    loaded: dict[str, Any] = {}
    load = task_manager.load

    def keep(asked: list[str]) -> Any:
        loaded.update(load(asked))
        for name in loaded["tasks"].keys() & longer:
            task = loaded["tasks"][name]
            least = min(LONGEST_WRITTEN, lm.max_length // 2)
            most = max(least, task.config.generation_kwargs.get("max_gen_toks", 0))
            task.set_config("generation_kwargs", {"max_gen_toks": most}, update=True)
        return loaded

    try:
        # The results lack the aggregation functions; loading the tasks before lm-eval sets its seeds would change them.
        cache = Path(datasets.config.HF_DATASETS_CACHE)
        with replaced(task_manager, "load", keep), full_disk_named(cache):
            results: Mapping[str, Any] = simple_evaluate(
                model=lm,
                tasks=list(names),
                task_manager=task_manager,
                bootstrap_iters=_BOOTSTRAPS,
                log_samples=True,
                **how,
            )
    except torch.OutOfMemoryError as error:
        raise HarnessError(
            f"out of memory in capability tasks {', '.join(names)}: lower the batch size"
        ) from error
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        raise HarnessError(f"no data for capability tasks {', '.join(names)}: {first_line(error)}") from error
    except (FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        raise BadInputError(
            f"capability tasks {', '.join(names)}: their data can't be read ({first_line(error)})"
        ) from error
    except ValueError as error:
        if not str(error).startswith("Duplicate task"):
            raise
        raise BadInputError(f"capability tasks {', '.join(names)}: {first_line(error)}") from error
    except KeyError as error:
        if "is not a registered task" not in str(error):
            raise
        raise BadInputError(f"unknown capability task: {error.args[0]}") from error
    return results, loaded


def _bootstrap_stderr(metric: Any, items: Sequence[Any], iters: int) -> float:
    """Return the standard error that lm-eval's function of this name returns, from the same resamples."""
    from lm_eval.api import metrics

    size = min(1000, iters)
    chunks = (metrics._bootstrap_internal(metric, size)((seed, items)) for seed in range(iters // size))
    return float(metrics.sample_stddev([*itertools.chain.from_iterable(chunks)]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log lines and bars of lm-eval and datasets off the terminal, and its `pip list` out of the way."""
    import datasets

    tasks, evaluator, metrics, utils = (
        importlib.import_module(f"lm_eval.{name}")
        for name in ("api.task", "evaluator", "api.metrics", "utils")
    )
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = not datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    with (
        replaced(tasks, "tqdm", functools.partial(vars(tasks)["tqdm"], disable=True)),
        # It lists the installed packages and the machine (1.5 s per call), which run.json records once.
        replaced(evaluator, "add_env_info", lambda results: None),
        # Outside a git checkout it prints git's own complaint.
        replaced(evaluator, "get_git_commit_hash", lambda: None),
        # It prints, draws a bar and forks a process that has threads and may hold a GPU.
        replaced(metrics, "bootstrap_stderr", _bootstrap_stderr),
        # A task's few templates would be compiled anew for each of its items.
        replaced(utils.env, "from_string", functools.cache(utils.env.from_string)),
    ):
        try:
            yield
        finally:
            if bars:
                datasets.enable_progress_bars()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
