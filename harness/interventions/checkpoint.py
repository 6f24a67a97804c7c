"""Another checkpoint: a model that was made by other means, of the same architecture as base or not, dense or MoE."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness.base.errors import BadInputError
from harness.base.progress import say
from harness.interventions.base import FOR_PEOPLE, Intervention, Prepared, Served

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel


class Checkpoint(Intervention):
    """Another model answers the same prompts, through its own chat template."""

    model: str
    """A checkpoint folder, relative to the specification's own file, or a hub id."""
    trust_remote_code: bool = False
    """Let the checkpoint's own Python code run where transformers has no class for it."""
    trust_remote_tokenizer: bool = False
    """Let the code of the checkpoint's tokenizer run, and no other."""

    @property
    def is_other_model(self) -> bool:
        """It is."""
        return True

    def located(self, folder: Path) -> Self:
        """Return the specification with the whole path of a folder."""
        path = (folder / Path(self.model).expanduser()).absolute()
        is_folder = path.is_dir() or self.model.startswith((".", "~"))
        return self.model_copy(update={"model": str(path)}) if is_folder else self

    @cached_property
    def _ref(self) -> ModelRef:
        from harness.models.load import resolve_model

        return resolve_model(self.model, self.trust_remote_code, self.trust_remote_tokenizer)

    def other_model(self, base: ModelRef) -> ModelRef:
        """Return the checkpoint; one that holds no tokenizer is asked through base's."""
        from harness.models.tokenizer_files import holds_tokenizer

        return self._ref if holds_tokenizer(self._ref.path) else replace(self._ref, tokenizer=base.path)

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a checkpoint that cannot be loaded or asked; say where the prompts are other tokens to it."""
        from harness.models.auto import check_weights, stored_dtype
        from harness.models.decoding import end_tokens
        from harness.models.load import load_tokenizer, outline_model

        other = self.other_model(ref)
        own = outline_model(other, may_be_dense=True)
        tokenizer = load_tokenizer(other)
        sizes = [each.model.config.get_text_config().vocab_size for each in (own, outline)]
        if other.tokenizer is not None and sizes[0] != sizes[1]:
            raise BadInputError(
                f"{other.path} holds no tokenizer, and its vocabulary is another than that of '{ref.name}': "
                f"{sizes[0]} tokens, not {sizes[1]}"
            )
        end_tokens(other.path, own.model.config, tokenizer)
        stored_dtype(other.path)
        check_weights(own.model, other.path)
        if (caveat := self.caveat(ref)) is not None:
            say(f"{self.name} ({other.name}) {caveat}")

    def caveat(self, ref: ModelRef) -> str | None:
        """Return that the same prompts are other tokens to it, where they are."""
        from harness.models.load import load_tokenizer

        own, of_base = load_tokenizer(self.other_model(ref)), load_tokenizer(ref)
        if own.get_vocab() != of_base.get_vocab():
            return f"has another tokenizer than {ref.name}: the same prompts are other tokens to it"
        if own.chat_template != of_base.chat_template:
            return f"has another chat template than {ref.name}: the same prompts reach it in another form"
        return None

    def content(self) -> dict[str, Any]:
        """Return the hash of its weights, configuration, tokenizer and chat template."""
        from harness.checkpoints.proof import model_fingerprint

        return {"sha256": model_fingerprint(self._ref.path)}

    def fingerprint(self) -> object:
        """Return what the checkpoint holds, wherever it is."""
        return {**self.model_dump(mode="json", exclude=FOR_PEOPLE | {"model"}), **self.content()}

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Leave the model as it is: it is this one."""
        return nullcontext()

    def served(self, made: Prepared) -> Served:
        """Serve the model that the engine was opened for, which is this one."""
        return Served()
