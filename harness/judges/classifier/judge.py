"""The judges of `presets/`: batched, on a GPU where there is one, and never guessing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from harness.base.errors import BadInputError, first_line
from harness.base.progress import progress
from harness.base.schema import read_named_yaml
from harness.judges.base import Verdict
from harness.judges.classifier.preset import ClassifierPreset
from harness.judges.opening import nothing_to_judge
from harness.judges.preset import PresetJudge
from harness.models.chat import ChatTemplate
from harness.models.markers import Markers

if TYPE_CHECKING:
    import torch

PREFIX = "HARNESS_CLASSIFIER_"
_BATCH = 16


class ClassifierJudge(PresetJudge[ClassifierPreset]):
    """Asks a sequence classifier or a guard model.

    An answer that the model is not sure of, or a verdict that begins like none of the preset's labels, is unscored.
    So is an exchange that does not fit the model's context: a part of it may not be judged for the whole.
    """

    @property
    def model(self) -> str:
        """The checkpoint: the preset's, or the one that HARNESS_CLASSIFIER_NAME names."""
        return os.environ.get(PREFIX + self.preset.name.upper(), "").strip() or self.preset.model

    @property
    def fingerprint(self) -> str:
        """A hash over the preset and the checkpoint's name."""
        chosen = [self.preset.model_dump(mode="json"), self.model]
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """The preset, with the checkpoint that is asked."""
        return self.preset.model_dump(mode="json") | {"model": self.model}

    def judge(self, id: str, prompt: str, response: str, *, truncated: bool = False) -> Verdict:
        """Label one answer; `judge_many` is faster."""
        return self.judge_many([{"id": id, "prompt": prompt, "response": response}])[0]

    def judge_many(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Label many answers, in their order.

        Raises:
            BadInputError: the model cannot be had, or is not what the preset says.
        """
        verdicts: dict[str, Verdict] = {}
        texts: dict[str, list[int]] = {}
        for row in rows:
            reason = nothing_to_judge(row["response"])
            if reason is None:
                texts[row["id"]] = self._tokens(row["prompt"], row["response"])
                if len(texts[row["id"]]) > self._room:
                    del texts[row["id"]]
                    reason = "prompt and answer are too long for the judging model"
            if reason is not None:
                verdicts[row["id"]] = Verdict(row["id"], None, reason=reason)
        # Batches of like length waste little on padding.
        ordered = sorted(texts, key=lambda id: len(texts[id]))
        if ordered:
            with progress(f"judge {self.preset.name}", len(ordered), "answers") as advance:
                for at in range(0, len(ordered), _BATCH):
                    ids = ordered[at : at + _BATCH]
                    verdicts |= {v.id: v for v in self._batch(ids, [texts[id] for id in ids])}
                    advance(len(ids))
        return [verdicts[row["id"]] for row in rows]

    def _batch(self, ids: Sequence[str], texts: Sequence[list[int]]) -> Iterator[Verdict]:
        import torch

        from harness.models.decoding import decoding_by, greedy

        model, tokenizer = self._loaded
        inputs = tokenizer.pad({"input_ids": list(texts)}, return_tensors="pt", padding_side=self._side)
        inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            if self.preset.kind == "sequence":
                yield from self._of_logits(ids, model(**inputs).logits.float())
                return
            ends = model.generation_config.eos_token_id
            rules = greedy(ends, tokenizer.pad_token_id, self.preset.max_tokens)
            with decoding_by(model, rules):
                written = model.generate(**inputs, generation_config=rules)
        outputs = tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for id, text in zip(ids, outputs, strict=True):
            yield self._of_text(id, text)

    def _of_logits(self, ids: Sequence[str], logits: torch.Tensor) -> Iterator[Verdict]:
        names = self._loaded[0].config.id2label
        positive = "refusal" if self.preset.measures == "refusal" else "harmful"
        shares = logits.softmax(-1)
        for id, row in zip(ids, shares.tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            name = names[best]
            if row[best] < self.preset.threshold or name not in self.preset.labels:
                reason = f"the classifier is not sure: {name} {row[best]:.2f}"
                yield Verdict(id, None, reason=reason)
                continue
            of_positive = sum(
                share for place, share in enumerate(row) if self.preset.labels.get(names[place]) == positive
            )
            yield Verdict(id, self.preset.labels[name], rule=name, probability=of_positive)

    def _of_text(self, id: str, text: str) -> Verdict:
        lines = [line.strip() for line in text.splitlines()]
        for beginning, label in self.preset.labels.items():
            if any(line == beginning or line.startswith(f"{beginning} ") for line in lines):
                return Verdict(id, label, rule=beginning)
        return Verdict(id, None, reason="the guard model's verdict is none of those that the preset names")

    def _tokens(self, prompt: str, response: str) -> list[int]:
        # An answer that spells the end of a turn must not end it, nor may a prompt write a verdict.
        if self._template is None:
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            return self._chat.conversation(turns)
        asked, said = self._markers.broken(prompt), self._markers.broken(response)
        return self._markers.encode_whole(self._template.render(prompt=asked, response=said))

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self._loaded[1])

    @cached_property
    def _markers(self) -> Markers:
        return Markers(self._loaded[1], self.preset.template or "")

    @cached_property
    def _template(self) -> jinja2.Template | None:
        if self.preset.template is None:
            return None
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        return environment.from_string(self.preset.template)

    @cached_property
    def _room(self) -> int:
        model, tokenizer = self._loaded
        most = getattr(model.config, "max_position_embeddings", None) or 10**9
        return min(int(most), int(tokenizer.model_max_length)) - (
            self.preset.max_tokens if self.preset.kind == "generative" else 0
        )

    @property
    def _side(self) -> str:
        return "left" if self.preset.kind == "generative" else "right"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        import transformers
        from safetensors import SafetensorError

        from harness.models.auto import refuse_parts
        from harness.models.decoding import plain_forward
        from harness.models.load import quiet_transformers

        quiet_transformers()
        kind = "SequenceClassification" if self.preset.kind == "sequence" else "CausalLM"
        where = f"judge '{self.preset.name}'"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
            auto = getattr(transformers, f"AutoModelFor{kind}")
            model, report = auto.from_pretrained(
                self.model, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
            plain_forward(model.config)
            model.__dict__.pop("generate", None)
            model.to(device).eval()
        except (OSError, ValueError, SafetensorError) as error:
            raise BadInputError(
                f"{where}: {self.model} cannot be loaded ({first_line(error)}); "
                f"{PREFIX}{self.preset.name.upper()} names another copy, such as a folder"
            ) from None
        refuse_parts(report, self.model)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise BadInputError(f"{where}: {self.model} has neither a padding token nor an end token")
        if self.preset.kind == "sequence":
            missing = [name for name in self.preset.labels if name not in model.config.id2label.values()]
            if missing:
                known = ", ".join(model.config.id2label.values())
                raise BadInputError(f"{where}: {self.model} has no label '{missing[0]}': it has {known}")
            model.config.pad_token_id = tokenizer.pad_token_id
        elif self.preset.template is None and not tokenizer.chat_template:
            raise BadInputError(f"{where}: {self.model} has no chat template; give the preset a template")
        return model, tokenizer


class OwnClassifier(ClassifierJudge):
    """The judge of the preset file that HARNESS_CLASSIFIER_PRESET names; it can be listed without one."""

    name = "classifier"
    description = (
        "A classifier or guard model of yours, by the preset file that HARNESS_CLASSIFIER_PRESET names."
    )
    languages = "those of its model"
    source = None

    def __init__(self) -> None:
        """Leave the preset unread until it is needed."""

    @cached_property
    def preset(self) -> ClassifierPreset:  # type: ignore[override]  # read late, and once
        """How the model is asked."""
        path = _preset_file()
        if not path:
            raise BadInputError(
                f"judge 'classifier': {PREFIX}PRESET is not set: expected a preset file (docs/judges.md)"
            )
        return read_named_yaml(Path(path), ClassifierPreset)

    @property
    def measures(self) -> str:
        """What the preset says; refusal where none is named."""
        return self.preset.measures if _preset_file() else "refusal"


def _preset_file() -> str:
    return os.environ.get(f"{PREFIX}PRESET", "").strip()
