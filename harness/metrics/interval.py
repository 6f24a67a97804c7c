"""A figure with its 95 % interval: one type for every metric, file and report."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Interval(BaseModel):
    """A figure with its 95 % interval."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    value: float
    """The estimate."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""
