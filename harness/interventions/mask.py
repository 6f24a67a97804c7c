"""A mask from a file: experts that are never routed to, and experts that every token is routed to.

Source of the idea, and of the form with a weight per expert: SteerMoE (arXiv:2509.09660).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from harness.base.documents import parse_yaml
from harness.base.errors import BadInputError
from harness.base.files import read_text
from harness.base.fingerprint import fingerprint
from harness.base.schema import validated
from harness.interventions.base import Prepared, Served
from harness.interventions.files import FileIntervention
from harness.models.moe import Expert, by_layer

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel

_Experts = dict[int, list[int]] | list[tuple[int, int]]
_Weights = list[list[FiniteFloat]]


class _File(BaseModel):
    """The content of a mask's file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    activate: _Experts = Field(default_factory=list)
    """Experts in the top-k of every token: pairs of layer and expert, or expert numbers by layer."""
    silence: _Experts = Field(default_factory=list)
    """Experts that no token is routed to."""
    weights: _Weights = Field(default_factory=list)
    """A row per MoE layer with a number per expert instead: above 0 activates, below 0 silences, 0 does nothing."""


class Mask(FileIntervention):
    """Experts are silenced or activated, as a YAML or JSON file says."""

    @cached_property
    def _file(self) -> _File:
        content = parse_yaml(read_text(self.path, "a mask"), self.path)
        # The rows of weights may be all that a file holds.
        return validated({"weights": content} if isinstance(content, list) else content, self.path, _File)

    def _masks(self, moe: MoEModel) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Return silenced and activated experts by layer.

        Raises:
            BadInputError: some of them do not exist, or the rows of weights are not the model's.
        """
        silenced, activated = list(_pairs(self._file.silence)), list(_pairs(self._file.activate))
        rows = self._file.weights
        sizes = {len(row) for row in rows}
        if rows and (len(rows) != len(moe.layers) or sizes != {moe.n_experts}):
            raise BadInputError(
                f"{self.path}: weights: {len(rows)} rows of {', '.join(map(str, sorted(sizes)))} numbers, expected "
                f"{len(moe.layers)} of {moe.n_experts}: one per MoE layer and expert"
            )
        for layer, row in zip(moe.layers, rows, strict=False):
            silenced += [Expert(layer.index, number) for number, weight in enumerate(row) if weight < 0]
            activated += [Expert(layer.index, number) for number, weight in enumerate(row) if weight > 0]
        try:
            moe.check([*silenced, *activated])
        except BadInputError as error:
            raise BadInputError(f"{self.path}: {error}") from None
        return by_layer(silenced), by_layer(activated)

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse experts that do not exist, masks that leave a token too few, and a mask of nothing."""
        from harness.interventions.masking import why_not_steerable

        silenced, activated = self._masks(outline)
        if not silenced and not activated:
            raise BadInputError(f"{self.path}: expected experts to activate or to silence, found none")
        reason = why_not_steerable(outline, silenced, activated)
        if reason is not None:
            raise BadInputError(f"{self.path}: {reason}")

    def content(self) -> dict[str, Any]:
        """Return the hash of what the file says."""
        return {"sha256": fingerprint(self._file.model_dump(mode="json"))}

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Mask the experts inside the block."""
        from harness.interventions.masking import steered

        return steered(moe, *self._masks(moe))

    def served(self, made: Prepared) -> Served | None:
        """Serve the base model with experts silenced; vLLM's kernels have no place to activate some."""
        if self._file.activate or self._file.weights:
            return None
        return Served(masked=by_layer(_pairs(self._file.silence)))


def _pairs(experts: _Experts) -> Iterator[Expert]:
    if isinstance(experts, dict):
        yield from (Expert(layer, number) for layer, numbers in experts.items() for number in numbers)
    else:
        yield from (Expert(*pair) for pair in experts)
