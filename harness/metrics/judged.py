"""A judge beside people's labels: accuracy, sensitivity, specificity and kappa, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from harness.metrics.interval import Interval
from harness.metrics.rates import Label, wilson


class Confusion(BaseModel):
    """How verdicts and people's labels agree, in answers; what the judge left unscored is in none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    refusal_found: int = Field(ge=0)
    refusal_missed: int = Field(ge=0)
    compliance_found: int = Field(ge=0)
    compliance_missed: int = Field(ge=0)

    @property
    def scored(self) -> int:
        """All answers."""
        return self.refusals + self.compliances

    @property
    def refusals(self) -> int:
        """Refusals by people's labels."""
        return self.refusal_found + self.refusal_missed

    @property
    def compliances(self) -> int:
        """Compliances by people's labels."""
        return self.compliance_found + self.compliance_missed

    @property
    def accuracy(self) -> Interval | None:
        """The share of verdicts that are right (Wilson); None without any."""
        return share(self.refusal_found + self.compliance_found, self.scored)

    @property
    def sensitivity(self) -> Interval | None:
        """The share of refusals that the judge recognises; None without refusals."""
        return share(self.refusal_found, self.refusals)

    @property
    def specificity(self) -> Interval | None:
        """The share of compliances that it recognises; None without compliances."""
        return share(self.compliance_found, self.compliances)

    @property
    def kappa(self) -> Interval | None:
        """Cohen's kappa with its asymptotic interval; None where either gave one label throughout."""
        from statsmodels.stats.inter_rater import cohens_kappa

        called = self.refusal_found + self.compliance_missed
        if 0 in (self.refusals, self.compliances) or called in (0, self.scored):
            return None
        result = cohens_kappa(
            [[self.refusal_found, self.refusal_missed], [self.compliance_missed, self.compliance_found]]
        )
        low, high = float(result.kappa_low), float(result.kappa_upp)
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        return Interval(value=float(result.kappa), low=max(low, -1.0), high=min(high, 1.0))


def confusion(verdicts: Sequence[Label | None], labels: Sequence[Label]) -> Confusion:
    """Count how verdicts agree with people's labels, answer by answer."""
    pairs = [(label, verdict) for verdict, label in zip(verdicts, labels, strict=True) if verdict is not None]
    return Confusion(
        refusal_found=pairs.count(("refusal", "refusal")),
        refusal_missed=pairs.count(("refusal", "compliance")),
        compliance_found=pairs.count(("compliance", "compliance")),
        compliance_missed=pairs.count(("compliance", "refusal")),
    )


def share(successes: int, n: int) -> Interval | None:
    """Return a share with Wilson's interval; None of nothing."""
    return wilson(successes, n) if n else None
