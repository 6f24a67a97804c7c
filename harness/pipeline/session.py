"""A run in progress: its plan, its folder, and the model once something needs it."""

from __future__ import annotations

import datetime
import itertools
import platform
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import harness
from harness.base.errors import BadInputError
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.engines.base import Engine
from harness.engines.in_memory import ModelInMemory
from harness.models.load import LoadedModel, ModelRef, outline_model, pick_device
from harness.pipeline.plan import Plan
from harness.runs.run_folder import RunFolder
from harness.tracking.watch import Watch

T = TypeVar("T")

_PACKAGES = (
    "torch",
    "transformers",
    "lm-eval",
    "datasets",
    "accelerate",
    "safetensors",
    "scikit-learn",
    "statsmodels",
)


class Session:
    """What the stages of a run share.

    Args:
        plan: what to do.
        folder: where to keep it.
    """

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self.plan = plan
        self.config = plan.config
        self.folder = folder
        self._kept: dict[Hashable, Any] = {}
        self._held: ModelInMemory | None = None
        self._other: Engine | None = None
        self.watch = Watch()

    @cached_property
    def world(self) -> dict[str, Any]:
        """Everything besides the prompts that can change an answer of the base model."""
        versions, kind = package_versions(), self.plan.engine
        identity = kind.identity(self.config)
        return {
            "model": self.model.fingerprint,
            "dtype": self.config.dtype,
            "device": self.device_type,
            "engine": kind.name,
            "generation": self.config.generation.deciding("answers"),
            **({"clock": self.clock.isoformat()} if self.plan.chat.reads_clock else {}),
            "versions": {name: versions[name] for name in ("harness", "torch", "transformers")},
            **({kind.name: identity} if identity else {}),
        }

    @cached_property
    def clock(self) -> datetime.datetime:
        """The time that chat templates read: when the run was first started."""
        kept = self.folder.state.get("clock")
        if kept is None:
            return datetime.datetime.now().replace(microsecond=0)
        try:
            return datetime.datetime.fromisoformat(kept)
        except (TypeError, ValueError) as error:
            path = self.folder.layout.run
            raise BadInputError(
                f"{path}: clock: expected a time such as 2026-11-26T12:00:00, found {kept!r}"
            ) from error

    @property
    def device_type(self) -> str:
        """The kind of device: cpu or cuda."""
        return pick_device(self.config.device).type

    @cached_property
    def model(self) -> ModelInMemory:
        """The base model in the memory of this process, whichever engine answers."""
        device = self.plan.engine.device_of_model(self.config)
        return ModelInMemory(self.plan.ref, self.plan.outline, self.config.dtype, device)

    @property
    def loaded(self) -> LoadedModel:
        """The model, loaded when first needed: a finished run is reported without it."""
        return self.model.loaded

    @property
    def engine(self) -> Engine:
        """What generates the answers."""
        return self._own_engine if self._other is None else self._other

    @cached_property
    def _own_engine(self) -> Engine:
        if self.config.engine != self.plan.engine.name:
            say(f"engine {self.config.engine}: {self.plan.engine.name}")
        return self._open(self.model)

    def _open(self, model: ModelInMemory) -> Engine:
        prompts = list(itertools.chain(*self.plan.prompts("test").values()))
        return self.plan.engine.open(self.config, model, prompts)

    @contextmanager
    def holding(self, ref: ModelRef) -> Iterator[ModelInMemory]:
        """Hold another model inside the block: it alone is in memory, and base is loaded again when needed.

        Inside a block that holds a model already, it is this one.
        """
        if self._held is not None:
            yield self._held
            return
        self._free_base()
        outline = outline_model(ref, may_be_dense=True)
        held = self._held = ModelInMemory(ref, outline, self.config.dtype, self.model.device)
        try:
            yield held
        finally:
            self._held = None
            held.unload()

    @contextmanager
    def answering_with(self, ref: ModelRef) -> Iterator[None]:
        """Let another model answer inside the block (`holding`)."""
        with self.holding(ref) as other:
            self._other = self._open(other)
            try:
                yield
            finally:
                self._other.close()
                self._other = None

    def _free_base(self) -> None:
        engine = self.__dict__.pop("_own_engine", None)
        if engine is not None:
            engine.close()
            # The engine may hold the model as well.
            del engine
        self.model.unload()

    def key(self, **inputs: Any) -> str:
        """Return a stage's fingerprint: its own inputs and the world they are used in."""
        return fingerprint({"world": self.world, **inputs})

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when this key was first asked for: what variants share is made once."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept

    def seeds(self) -> dict[str, int]:
        """Return each seed by what it decides."""
        seed, draws = self.config.seed, [each for each in self.plan.variants if each.spec.is_drawn]
        return {
            "splits": self.config.seed_of_splits,
            "refusals": seed,
            "training_order": seed,
            "capability": seed,
            **{variant.name: random_draw_seed(seed, variant.draw) for variant in draws},
        }


def random_draw_seed(seed: int, draw: int) -> int:
    """Return the seed of one random draw of experts; no two runs with near seeds share draws."""
    return int(fingerprint(["random experts", seed, draw])[:8], 16)


def package_versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    versions = {"harness": harness.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
