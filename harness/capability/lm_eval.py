"""Capability by lm-eval, of a model in memory or of what vLLM serves.

lm-eval's request cache is never used: its keys leave the model out, so a variant would get another's answers.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, HarnessError, first_line
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.capability.prepare import prepare_tasks
from harness.capability.results import CapabilityResult, capability_result
from harness.capability.tasks import (
    CapabilityTask,
    list_capability_tasks,
    resolve_capability_tasks,
    with_members,
)

if TYPE_CHECKING:
    from harness.engines.vllm import VllmEngine

_BOOTSTRAPS = 1000


def check_capability_tasks(
    names: Sequence[str], include: Sequence[Path] = (), data_dirs: Sequence[Path] = ()
) -> dict[str, str]:
    """Return what is going to be measured: each task's own name and a fingerprint of what it reads.

    Of lm-eval's own tasks the fingerprint is lm-eval's version.

    Raises:
        BadInputError: an unknown task, or a data file that no --data-dir has.
    """
    lm_eval_version = f"lm-eval {importlib.metadata.version('lm_eval')}"
    resolved = resolve_capability_tasks(names, include, data_dirs)
    ours = list_capability_tasks(include)
    return {
        name: fingerprint([member.fingerprint(data_dirs) for member in with_members(task, ours)])
        if task
        else lm_eval_version
        for name, task in resolved.items()
    }


def run_capability(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    vllm: VllmEngine | None = None,
    include: Sequence[Path] = (),
    data_dirs: Sequence[Path] = (),
    limit: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    num_fewshot: int | None = None,
    apply_chat_template: bool | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    system_prompt: str | None = None,
    description: str = "capability",
) -> dict[str, CapabilityResult]:
    """Measure a loaded transformers model, as it is in memory, or what vLLM serves, on lm-eval tasks.

    Args:
        model: a causal language model; its hooks and changed weights count.
        tokenizer: its tokenizer, which is left as it is.
        tasks: names of our tasks (`list_capability_tasks`) or of lm-eval's own.
        vllm: measure what this engine serves instead; `model` is not used then.
        include: folders with more task files.
        data_dirs: folders with copies of the public sets, the first that has a file wins.
        limit: items of each task; all of them by default.
        batch_size: requests in one forward pass.
        seed: every seed of lm-eval; the global random states are set too.
        num_fewshot: worked examples before each item; by default what each task's file says.
        apply_chat_template: send items as chat messages; by default what each task's file says (no, if nothing).
        chat_template_kwargs: passed on to the chat template.
        system_prompt: put before every item.
        description: of the progress bar.

    Returns:
        Results by the tasks' own names ("piqa_local", where "piqa" was asked for and ours stood in).

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

    def chat(name: str) -> bool:
        task = resolved[name]
        from_file = task is not None and task.notes.apply_chat_template
        return from_file if apply_chat_template is None else apply_chat_template

    if any(map(chat, resolved)) and not tokenizer.chat_template:
        raise BadInputError(
            "the tokenizer has no chat template, but capability tasks are to be sent as chats"
        )
    found: dict[str, CapabilityResult] = {}
    with tempfile.TemporaryDirectory(prefix="harness-capability-") as folder, _quiet():
        prepare_tasks({task.name: task for task in needed}.values(), data_dirs, Path(folder))
        template = dict(chat_template_kwargs or {})
        lm = (
            _language_model(model, tokenizer, batch_size, template, description)
            if vllm is None
            else _served_model(vllm, template, description)
        )
        for is_ours, as_chat in itertools.product((True, False), repeat=2):
            names = [
                name
                for name, task in resolved.items()
                if (task is not None, chat(name)) == (is_ours, as_chat)
            ]
            if names:
                manager = _our_tasks(Path(folder)) if is_ours else _lm_evals_tasks()
                results = _evaluate(lm, names, manager, limit, seed, num_fewshot, as_chat, system_prompt)
                found.update(
                    {name: capability_result(name, results, _metric(resolved[name])) for name in names}
                )
    return {name: found[name] for name in resolved}


def _metric(task: CapabilityTask | None) -> str | None:
    return None if task is None else task.notes.metric


def _our_tasks(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder), include_defaults=False)


@functools.cache
def _lm_evals_tasks() -> Any:
    """Index lm-eval's own tasks: 20 s, so once for all variants, and never when only ours are asked for."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _evaluate(
    lm: Any,
    names: list[str],
    manager: Any,
    limit: int | None,
    seed: int,
    num_fewshot: int | None,
    as_chat: bool,
    system: str | None,
) -> Mapping[str, Any]:
    import datasets
    import torch
    from lm_eval import simple_evaluate

    try:
        results: Mapping[str, Any] = simple_evaluate(
            model=lm,
            tasks=list(names),
            task_manager=manager,
            limit=limit,
            num_fewshot=num_fewshot,
            bootstrap_iters=_BOOTSTRAPS,
            log_samples=True,
            system_instruction=system,
            apply_chat_template=as_chat,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except torch.OutOfMemoryError as error:
        raise HarnessError(
            f"out of memory in capability tasks {', '.join(names)}: lower the batch size"
        ) from error
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        raise HarnessError(f"no data for capability tasks {', '.join(names)}: {first_line(error)}") from error
    except KeyError as error:
        if "is not a registered task" not in str(error):
            raise
        raise BadInputError(f"unknown capability task: {error.args[0]}") from error
    return results


def _progressing(kind: Any, description: str) -> Any:
    """Return one of lm-eval's model classes with our progress bar in place of its own; it calls `self.advance`."""

    class Progressing(kind):  # type: ignore[misc]
        advance: Callable[[int], None]

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with progress(description, len(requests), "answers") as self.advance:
                return super().generate_until(requests, disable_tqdm=True)

    return Progressing


def _language_model(
    model: Any, tokenizer: Any, batch_size: int, chat_template_kwargs: dict[str, Any], description: str
) -> Any:
    """Return an lm-eval model that reports its progress in rows sent through the network."""
    from lm_eval.models.huggingface import HFLM

    class WithProgress(_progressing(HFLM, description)):  # type: ignore[misc]
        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, **kwargs: Any) -> Any:
            # Choices of one token share their question's row.
            rows = {tuple(context + continuation[:-1]) for _, context, continuation in requests}
            with progress(description, len(rows), "rows") as self.advance:
                return super()._loglikelihood_tokens(requests, disable_tqdm=True, **kwargs)

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            logits = super()._model_call(inps, *args, **kwargs)
            self.advance(len(inps))
            return logits

        def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            tokens = super()._model_generate(context, *args, **kwargs)
            self.advance(len(context))
            return tokens

    return WithProgress(
        pretrained=model,
        # lm-eval sets a padding token and the padding side.
        tokenizer=copy.deepcopy(tokenizer),
        batch_size=batch_size,
        # In bfloat16 the log-likelihoods of different choices would often be the same number.
        softmax_dtype="float32",
        chat_template_args=chat_template_kwargs,
    )


def _version_also_on_cpu(package: str, find: Callable[[str], str] = importlib.metadata.version) -> str:
    if package == "vllm":
        return str(importlib.import_module("vllm").__version__)
    return find(package)


def _served_model(engine: VllmEngine, chat_template_kwargs: dict[str, Any], description: str) -> Any:
    """Return lm-eval's vLLM model around the vLLM that an engine has running, with its weights and masks."""
    # The CPU build is a package of another name, whose version lm-eval does not find.
    with _replaced(importlib.metadata, "version", _version_also_on_cpu):
        module = importlib.import_module("lm_eval.models.vllm_causallms")

    class WithProgress(_progressing(module.VLLM, description)):  # type: ignore[misc]
        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with progress(description, len(requests), "rows") as self.advance:
                return super()._loglikelihood_tokens(requests, disable_tqdm=True)

        def modify_gen_kwargs(self, *args: Any, **kwargs: Any) -> Any:
            settings, *rest = super().modify_gen_kwargs(*args, **kwargs)
            # lm-eval leaves it out where a task's file does, and vLLM would draw answers at random.
            return {"temperature": 0.0, **settings}, *rest

        def _model_generate(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
            with engine.failures():
                outputs = super()._model_generate(requests, *args, **kwargs)
            engine.check_masked()
            self.advance(len(requests))
            return outputs

    with _replaced(module, "LLM", lambda **_: engine.running()):
        return WithProgress(
            pretrained=str(engine.checkpoint),
            tokenizer=str(engine.ref.path),
            trust_remote_code=engine.ref.trust_remote_code,
            max_model_len=engine.max_model_len,
            chat_template_args=chat_template_kwargs,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log lines and bars of lm-eval and datasets off the terminal, and its `pip list` out of the way."""
    import datasets

    tasks, evaluator = (importlib.import_module(name) for name in ("lm_eval.api.task", "lm_eval.evaluator"))
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = not datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    with (
        _replaced(tasks, "tqdm", functools.partial(vars(tasks)["tqdm"], disable=True)),
        # It lists the installed packages and the machine (1.5 s a call), which run.json records once.
        _replaced(evaluator, "add_env_info", lambda results: None),
        # Outside a git checkout it prints git's own complaint.
        _replaced(evaluator, "get_git_commit_hash", lambda: None),
    ):
        try:
            yield
        finally:
            if bars:
                datasets.enable_progress_bars()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
