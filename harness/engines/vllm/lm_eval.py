"""lm-eval's vLLM model around the vLLM that an engine has running."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.base.progress import progress
from harness.engines.lm_eval import adapted, answer_alone, replaced
from harness.engines.vllm.start import runs_code
from harness.models.thoughts import Reader

if TYPE_CHECKING:
    from harness.engines.vllm.engine import VllmEngine


def served_model(engine: VllmEngine, description: str) -> Any:
    """Return lm-eval's vLLM model around the vLLM that an engine has running, with its weights and masks."""
    # The CPU build is a package of another name, whose version lm-eval does not find.
    with replaced(importlib.metadata, "version", _version_also_on_cpu):
        module = importlib.import_module("lm_eval.models.vllm_causallms")

    class WithProgress(adapted(module.VLLM, description, engine.chat.markers)):  # type: ignore[misc]
        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with progress(description, len(requests), "rows") as self.advance:
                return super()._loglikelihood_tokens(requests, disable_tqdm=True)

        def modify_gen_kwargs(self, *args: Any, **kwargs: Any) -> Any:
            settings, *rest = super().modify_gen_kwargs(*args, **kwargs)
            # lm-eval leaves it out if the task's file does; vLLM would then sample.
            return {"temperature": 0.0, **settings}, *rest

        def apply_chat_template(
            self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            # lm-eval leaves out the argument enable_thinking. What an item spells is text, as in `adapted`.
            broken = engine.chat.markers.broken
            return str(
                self.tokenizer.apply_chat_template(
                    [turn | {"content": broken(turn["content"])} for turn in chat_history],
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                    chat_template=engine.chat.source,
                    **engine.chat.arguments,
                )
            )

        def _model_generate(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
            budget = engine.chat.thinking.tokens if self.as_chat and kwargs.get("generate") else None
            limits = [params.max_tokens for params in kwargs["sampling_params"]] if budget is not None else []
            if budget is not None:
                # Reasoning has a budget of its own; what a task ends an answer with does not end it.
                for params in kwargs["sampling_params"]:
                    params.max_tokens += budget
                    params.stop = []
                    params.stop_token_ids = list(engine.ends)
            with engine.failures():
                outputs = super()._model_generate(requests, *args, **kwargs)
            engine.check_masked()
            self.advance(len(requests))
            reader = Reader(engine.chat, engine.ends)
            for output, longest in zip(outputs, limits, strict=False):
                answer = output.outputs[0]
                kept = answer_alone(reader, list(answer.token_ids), longest)
                answer.text = engine.tokenizer.decode(kept, skip_special_tokens=True)
            return outputs

    with replaced(module, "LLM", lambda **_: engine.running()):
        model = WithProgress(
            pretrained=str(engine.checkpoint),
            tokenizer=str(engine.ref.path),
            trust_remote_code=runs_code(engine.ref),
            max_model_len=engine.max_model_len,
            chat_template_args=engine.chat.arguments,
        )
    # lm-eval knows no choice between templates.
    model.tokenizer.chat_template = engine.chat.source or None
    return model


def _version_also_on_cpu(package: str, find: Callable[[str], str] = importlib.metadata.version) -> str:
    if package == "vllm":
        return str(importlib.import_module("vllm").__version__)
    return find(package)
