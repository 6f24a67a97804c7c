"""A judging model on this machine: how it is asked, what it says, and whether it fits what it is taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, first_line
from harness.base.files import read_json_object
from harness.data.reasoning import split
from harness.judges.preset import question_template
from harness.models.chat import ChatTemplate
from harness.models.markers import Markers

if TYPE_CHECKING:
    import jinja2
    import torch

_ASKED, _SAID, _POLICY = "harnessprobeofaquestion", "harnessprobeofananswer", "harnessprobeofapolicy"


@dataclass(frozen=True)
class Question:
    """What is put to a model; judges whose question is the same get the same words from it.

    Attributes:
        model: a hub id or a checkpoint folder.
        classifies: it classifies a text; else it writes.
        template: Jinja over `prompt` and `response`: the whole text, or with a policy the user's turn. None for the
            model's chat template over both.
        policy: the system turn.
    """

    model: str
    classifies: bool
    template: str | None
    policy: str | None


class Checkpoint:
    """A judging model, loaded when first asked.

    Args:
        judge: the judge's name, for messages.
        question: what is put to it.
    """

    def __init__(self, judge: str, question: Question) -> None:
        self.judge = judge
        self.question = question
        # What was written, by the tokens that were read and the limit; variants often give the same answer.
        self._written: dict[tuple[tuple[int, ...], int], str | None] = {}

    def refuse(self, what: str) -> BadInputError:
        """Return the error that the model is not what the judge needs."""
        return BadInputError(f"judge '{self.judge}': {self.question.model} {what}")

    def check(self) -> None:
        """Refuse a checkpoint that is not there, is of another kind, or is not shown the answer; no weights are read.

        Raises:
            BadInputError: what does not fit, and what to do.
        """
        names = self._config.architectures or []
        other = next(
            (n for n in names if n.endswith("ForSequenceClassification") != self.question.classifies), None
        )
        if other is not None:
            wanted = "a sequence classifier" if self.question.classifies else "a model that writes"
            fits = "guard, policy or score" if self.question.classifies else "classifier"
            raise self.refuse(f"is a {other}, expected {wanted}: form {fits} fits it")
        for turn, probe in (("policy", _POLICY), ("answer", _SAID)):
            if (turn == "answer" or self.question.policy is not None) and probe not in self._probed:
                raise self.refuse(
                    f"is not shown the {turn}: its chat template leaves it out; give the question with template_file"
                    if self.question.template is None or turn == "policy"
                    else "is not shown the answer: expected `response` in template"
                )

    def tokens(self, prompt: str, response: str) -> list[int]:
        """Return the tokens of the question about an answer.

        An answer that spells the end of a turn must not end it, nor may a prompt write a verdict.
        """
        if self._template is None:
            return self._chat.conversation(self._turns(prompt, response))
        if self.question.policy is not None:
            return self._chat.conversation(self._turns(prompt, response, self.question.policy))
        asked, said = self._markers.broken(prompt), self._markers.broken(response)
        return self._markers.encode_whole(self._template.render(prompt=asked, response=said))

    def continued(self, text: str) -> list[int]:
        """Return the tokens of a text that is written behind another."""
        return self._markers.continuation(text)

    @cached_property
    def room(self) -> int:
        """The tokens that it can read and write together."""
        config = self._config.get_text_config()
        most = getattr(config, "max_position_embeddings", None) or 10**9
        return min(int(most), int(self.tokenizer.model_max_length))

    def logits(self, texts: Sequence[list[int]]) -> torch.Tensor:
        """Return the logits of a classifier's labels, or of the next token: [texts, labels or tokens]."""
        import torch

        inputs = self._padded(texts)
        more = {} if self.question.classifies else {"logits_to_keep": 1}
        with torch.inference_mode():
            logits: torch.Tensor = self.model(**inputs, **more).logits.float()
        return logits if self.question.classifies else logits[:, -1]

    def write(self, texts: Sequence[list[int]], most: int) -> list[str | None]:
        """Return what it writes about each text, without reasoning; None where it never came to an answer.

        Args:
            texts: from `tokens`.
            most: tokens of an answer.
        """
        keys = [(tuple(text), most) for text in texts]
        new = [list(key[0]) for key in dict.fromkeys(keys) if key not in self._written]
        if new:
            said = self._generated(new, most)
            self._written |= {(tuple(text), most): each for text, each in zip(new, said, strict=True)}
        return [self._written[key] for key in keys]

    def _generated(self, texts: Sequence[list[int]], most: int) -> list[str | None]:
        import torch

        from harness.models.decoding import decoding_by, greedy

        ends = self.model.generation_config.eos_token_id
        rules = greedy(ends, self.tokenizer.pad_token_id, most)
        inputs = self._padded(texts)
        with torch.inference_mode(), decoding_by(self.model, rules):
            written = self.model.generate(**inputs, generation_config=rules)
        rows = written[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._answer(row, {ends} if isinstance(ends, int) else {*(ends or ())}) for row in rows]

    def _answer(self, ids: list[int], ends: set[int]) -> str | None:
        """Return the answer without what marks reasoning and turns: the final channel, where there are channels."""
        length = next((at for at, id in enumerate(ids) if id in ends), len(ids))
        # Special tokens mark channels, so that they are taken out last.
        answer = split(self.tokenizer.decode(ids[:length]), self._opened).answer
        for token in self.tokenizer.all_special_tokens:
            answer = answer and answer.replace(token, "")
        return answer

    def _padded(self, texts: Sequence[list[int]]) -> dict[str, Any]:
        side = "right" if self.question.classifies else "left"
        inputs = self.tokenizer.pad(
            {"input_ids": list(texts)}, return_attention_mask=True, return_tensors="pt", padding_side=side
        )
        return {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

    def _turns(self, prompt: str, response: str, policy: str | None = None) -> list[dict[str, str]]:
        if self._template is None or policy is None:
            return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        content = self._template.render(prompt=prompt, response=response)
        return [{"role": "system", "content": policy}, {"role": "user", "content": content}]

    @cached_property
    def _probed(self) -> str:
        """The text of a question whose parts are known."""
        if self._template is not None and self.question.policy is None:
            return self._template.render(prompt=_ASKED, response=_SAID)
        if not self.tokenizer.chat_template:
            raise self.refuse("has no chat template: give the question with template_file")
        policy = None if self.question.policy is None else _POLICY
        return self._chat.transcript(self._turns(_ASKED, _SAID, policy), begins_answer=True)

    @cached_property
    def _opened(self) -> str:
        """What the template puts between an answer and the verdict."""
        return self._probed.rpartition(_SAID)[2]

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer)

    @cached_property
    def _markers(self) -> Markers:
        return Markers(self.tokenizer, self.question.template or "")

    @cached_property
    def _template(self) -> jinja2.Template | None:
        if self.question.template is None:
            return None
        what = "Jinja over prompt and response"
        return question_template(self.judge, self.question.template, ("prompt", "response"), what)

    def _had(self, load: Any) -> Any:
        """Return what `load` reads of the checkpoint."""
        from safetensors import SafetensorError

        from harness.models.load import quiet_transformers

        quiet_transformers()
        try:
            return load()
        except (OSError, ValueError, SafetensorError) as error:
            raise BadInputError(
                f"judge '{self.judge}': {self.question.model} cannot be loaded ({first_line(error)}); "
                f"judge_settings.{self.judge}.model names another copy, such as a folder"
            ) from None

    @cached_property
    def _config(self) -> Any:
        import transformers
        from transformers.utils.peft_utils import find_adapter_config_file

        def config() -> Any:
            # An adapter has no configuration; transformers loads it upon the model that it names.
            adapter = find_adapter_config_file(self.question.model)
            base = (
                read_json_object(Path(adapter))["base_model_name_or_path"] if adapter else self.question.model
            )
            return transformers.AutoConfig.from_pretrained(base)

        return self._had(config)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, with a token to pad with."""
        import transformers

        tokenizer = self._had(lambda: transformers.AutoTokenizer.from_pretrained(self.question.model))
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise self.refuse("has neither a padding token nor an end token")
        return tokenizer

    @cached_property
    def model(self) -> Any:
        """Its weights, on the GPU where there is one."""
        import torch
        import transformers

        from harness.models.auto import auto_class, refuse_parts
        from harness.models.decoding import plain_forward

        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        if self.question.classifies:
            auto: Any = transformers.AutoModelForSequenceClassification
        else:
            auto = auto_class(self._config)
        model, report = self._had(
            lambda: auto.from_pretrained(
                self.question.model, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
        )
        refuse_parts(report, self.question.model)
        plain_forward(model.config)
        model.__dict__.pop("generate", None)
        model.to(device).eval()
        if self.question.classifies:
            model.config.pad_token_id = self.tokenizer.pad_token_id
        return model

    @property
    def labels(self) -> Mapping[int, str]:
        """A classifier's label names, by their place among the logits."""
        return self._config.id2label  # type: ignore[no-any-return]
