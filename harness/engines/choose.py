"""Which engine answers in a run: decided, and refused, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import BadInputError, nearest
from harness.engines.base import ENGINES, EngineKind

if TYPE_CHECKING:
    from harness.config import RunConfig

AUTO = "auto"


def choose_engine(config: RunConfig, device: str) -> EngineKind:
    """Return the engine that a run names; `auto` takes the one that is best on the device, transformers if none is.

    Args:
        config: the run's settings.
        device: the type of the run's device, cpu or cuda.

    Raises:
        BadInputError: no engine has this name (the nearest is offered), or it cannot be used on this machine.
    """
    setting = config.engine
    if setting != AUTO and setting not in ENGINES:
        raise BadInputError(f"unknown engine '{setting}': {nearest(setting, [*ENGINES, AUTO])}")
    if setting == AUTO:
        best = (name for name, kind in sorted(ENGINES.working()) if kind.is_best_on(device))
        name = next(best, "transformers")
    else:
        name = setting
    kind = ENGINES.get(name)
    reason = kind.why_unusable(config, device)
    if reason is not None:
        # `auto` as well: who installed a faster engine wants to know why it is not used.
        raise BadInputError(f"engine = {setting}: {reason}")
    return kind
