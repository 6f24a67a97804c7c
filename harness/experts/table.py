"""The expert table: one row per expert and phase, with how often safe and unsafe prompts used it.

Columns (every selection method is a function of this table alone; docs/selection.md says what each is for):

- phase, layer, expert: the key; `layer` is the true index in the model.
- a_safe, a_unsafe: routed tokens that went to the expert.
- a_safe_n, a_unsafe_n: the same divided by the routed tokens of the phase, so a layer's column sums to k.
- risk_diff: a_unsafe_n - a_safe_n; positive where unsafe content uses the expert more.
- low, high, p_value, q_value: the risk difference's interval over prompts (near-duplicates count as one), its one-sided
  p-value, and that adjusted over all experts of the phase.
- stability: the share of half-samples of the prompts in which the expert is among the selected.
- gate_diff, presence_diff, prompt_diff, cut_diff: the difference in gate weight per token, in the share of prompts that
  use the expert at all, with each prompt counting once, and over answers cut to the same length (NaN where single
  tokens were not recorded, and in phases without an answer; the first also where no gate weights were).
- log_odds: the log odds ratio of a token's going to the expert, unsafe against safe.
- topic_adjusted, topic_low, topic_high, topic_p_value, topic_q_value: the difference from control prompts on the same
  topics, each prompt counting once (NaN without control prompts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from harness.base.errors import BadInputError
from harness.experts import views
from harness.experts.bootstrap import Ends, bootstrap_interval, paired_interval
from harness.experts.controls import Pairs, pair_differences, pair_groups
from harness.experts.permutation import FEWEST_PROMPTS, paired_test, permutation_test, q_values
from harness.experts.stability import stability
from harness.experts.views import Usage
from harness.routing.counts import PHASES, Phase, RoutingCounts, join
from harness.routing.tokens import RoutedTokens, join_tokens

if TYPE_CHECKING:
    import pandas as pd

KEY = ["phase", "layer", "expert"]
TOPIC_COLUMNS = ("topic_adjusted", "topic_low", "topic_high", "topic_p_value", "topic_q_value")
_ANSWERED: tuple[Phase, ...] = ("generation", "all", "answer")


class Group(NamedTuple):
    """Prompts of one kind.

    Attributes:
        counts: their routing, N prompts.
        tokens: their single tokens, where those were recorded.
        groups: [N], the group of near-duplicates of each prompt, which statistics take as one sample; None where all
            prompts differ.
    """

    counts: RoutingCounts
    tokens: RoutedTokens | None = None
    groups: np.ndarray | None = None

    def samples(self, view: Usage) -> Usage:
        """Return a view of these prompts with one row per independent sample."""
        return view if self.groups is None else view.summed(self.groups)


class Control(NamedTuple):
    """Control prompts, and how they are matched with the unsafe ones (no pairs: as a whole)."""

    group: Group
    pairs: Pairs


class Statistics(NamedTuple):
    """How the columns beyond the plain differences are computed."""

    seed: int
    top_k: int
    direction: Literal["unsafe", "safe"] = "unsafe"
    permutations: int = 10_000
    resamples: int = 2_000
    half_samples: int = 200
    cut_tokens: int = 16


def expert_table(
    unsafe: RoutingCounts, safe: RoutingCounts, phases: Sequence[Phase] | None = None
) -> pd.DataFrame:
    """Compare how often unsafe and safe prompts use each expert: the guide's columns.

    Args:
        unsafe: counts of the harmful prompts.
        safe: counts of the benign prompts.
        phases: which phases to tabulate; by default all that have tokens of their own (`phases_of`).

    Raises:
        BadInputError: the counts come from different models, or a phase has no routed token.
    """
    import pandas as pd

    _check_same_model(unsafe, safe)
    phases = phases or phases_of(Group(unsafe), Group(safe))
    return pd.concat([_phase_table(unsafe, safe, phase) for phase in phases], ignore_index=True)


def statistical_table(
    unsafe: Group,
    safe: Group,
    how: Statistics,
    control: Control | None = None,
    phases: Sequence[Phase] | None = None,
) -> pd.DataFrame:
    """Compare how unsafe and safe prompts use each expert: all columns.

    Args:
        unsafe: the harmful prompts.
        safe: the benign prompts.
        how: seeds and sizes of the resampling.
        control: benign prompts on the harmful prompts' topics.
        phases: which phases to tabulate; by default all that have tokens of their own (`phases_of`).

    Raises:
        BadInputError: the counts come from different models, a phase has no routed token, or there are too few
            prompts for the statistics.
    """
    import pandas as pd

    _check_same_model(unsafe.counts, safe.counts)
    groups = (unsafe, safe) if control is None else (unsafe, safe, control.group)
    parts = []
    for phase in phases or phases_of(*groups, fewest=FEWEST_PROMPTS):
        table = _phase_table(unsafe.counts, safe.counts, phase)
        # A seed of its own for each phase, the same whichever others are asked for.
        own = how._replace(seed=how.seed + PHASES.index(phase))
        columns = _uncertainty(unsafe, safe, phase, own)
        columns |= _other_differences(unsafe, safe, phase, how.cut_tokens)
        columns |= _topic(unsafe, control, phase, own)
        parts.append(table.assign(**{name: values.ravel() for name, values in columns.items()}))
    return pd.concat(parts, ignore_index=True)


def phases_of(*groups: Group, fewest: int = 1) -> tuple[Phase, ...]:
    """Return the phases in which all groups of prompts have tokens of their own.

    Without any reasoning, an answer is all of a generation.

    Args:
        groups: that are compared.
        fewest: how many samples of each must have reasoning, so that it is compared.
    """
    reasoning = [group.samples(views.by_token(group.counts, "reasoning")).weight for group in groups]
    thinking = [int((weight > 0).sum()) for weight in reasoning]
    return tuple(
        phase
        for phase in PHASES
        if (phase != "reasoning" or min(thinking) >= fewest) and (phase != "answer" or any(thinking))
    )


def _check_same_model(unsafe: RoutingCounts, safe: RoutingCounts) -> None:
    if (unsafe.layers, unsafe.counts.shape[2:]) != (safe.layers, safe.counts.shape[2:]):
        raise BadInputError("the routing counts of unsafe and safe prompts come from different models")


def _phase_table(unsafe: RoutingCounts, safe: RoutingCounts, phase: Phase) -> pd.DataFrame:
    import pandas as pd

    a_unsafe, unsafe_tokens = _pooled(unsafe, phase, "unsafe")
    a_safe, safe_tokens = _pooled(safe, phase, "safe")
    n_layers, n_experts = a_safe.shape
    a_safe_n, a_unsafe_n = a_safe / safe_tokens, a_unsafe / unsafe_tokens
    return pd.DataFrame(
        {
            "phase": phase,
            "layer": np.repeat(np.asarray(safe.layers), n_experts),
            "expert": np.tile(np.arange(n_experts), n_layers),
            "a_safe": a_safe.ravel(),
            "a_unsafe": a_unsafe.ravel(),
            "a_safe_n": a_safe_n.ravel(),
            "a_unsafe_n": a_unsafe_n.ravel(),
            "risk_diff": (a_unsafe_n - a_safe_n).ravel(),
        }
    )


def _pooled(counts: RoutingCounts, phase: Phase, which: str) -> tuple[np.ndarray, int]:
    """Return a phase's counts over all prompts, [L, E], and its routed tokens."""
    per_prompt, tokens = counts.of(phase)
    total = int(tokens.sum())
    if not total:
        raise BadInputError(
            f"the {which} prompts have no routed token in phase '{phase}': nothing to compare"
        )
    return per_prompt.sum(axis=0), total


def _uncertainty(unsafe: Group, safe: Group, phase: Phase, how: Statistics) -> dict[str, np.ndarray]:
    """Return how sure the risk difference is, [L, E] each."""
    view, is_unsafe = _together(
        *(group.samples(views.by_token(group.counts, phase)) for group in (unsafe, safe))
    )
    interval, p_value = _tested(view, is_unsafe, how)
    top_k = min(how.top_k, p_value.size)
    return {
        "low": interval.low,
        "high": interval.high,
        "p_value": p_value,
        "q_value": q_values(p_value),
        "stability": stability(
            *view,
            is_unsafe,
            top_k=top_k,
            half_samples=how.half_samples,
            seed=how.seed,
            direction=how.direction,
        ),
    }


def _tested(view: Usage, is_unsafe: np.ndarray, how: Statistics) -> tuple[Ends, np.ndarray]:
    """Return the interval of the difference between the two groups of a view, and its p-value, [L, E] each."""
    test = permutation_test(
        *view, is_unsafe, permutations=how.permutations, seed=how.seed, direction=how.direction
    )
    return bootstrap_interval(*view, is_unsafe, resamples=how.resamples, seed=how.seed), test.p_value


def _together(unsafe: Usage, safe: Usage) -> tuple[Usage, np.ndarray]:
    """Put both groups into one view, with which rows are unsafe; samples without weight say nothing."""
    view = Usage(*(np.concatenate(parts) for parts in zip(unsafe, safe, strict=True)))
    is_unsafe = np.arange(len(view.weight)) < len(unsafe.weight)
    counted = view.weight > 0
    return view.of(counted), is_unsafe[counted]


def _other_differences(unsafe: Group, safe: Group, phase: Phase, cut: int) -> dict[str, np.ndarray]:
    """Return the differences by other ways of counting, [L, E] each."""
    groups = (unsafe.counts, safe.counts)

    def difference(view: views.View) -> np.ndarray:
        of_unsafe, of_safe = (view(counts, phase).pooled() for counts in groups)
        return of_unsafe - of_safe

    unknown = np.full(unsafe.counts.counts.shape[2:], np.nan)
    columns = {
        # Routing that another engine recorded has no gate weights.
        "gate_diff": unknown if any(each.mass is None for each in groups) else difference(views.by_gate),
        "presence_diff": difference(views.by_presence),
        "prompt_diff": difference(views.by_prompt),
        "cut_diff": unknown,
        "log_odds": _log_odds(*groups, phase),
    }
    if phase in _ANSWERED and unsafe.tokens is not None and safe.tokens is not None:
        n_experts = unsafe.counts.counts.shape[-1]
        first, second = (
            views.by_cut_answer(tokens, n_experts, cut).pooled() for tokens in (unsafe.tokens, safe.tokens)
        )
        columns["cut_diff"] = first - second
    return columns


def _log_odds(unsafe: RoutingCounts, safe: RoutingCounts, phase: Phase) -> np.ndarray:
    """Return the log odds ratio with half a token added everywhere (Haldane and Anscombe), so that it is finite."""

    def logit(counts: RoutingCounts) -> np.ndarray:
        used, tokens = counts.of(phase)
        hits = used.sum(axis=0)
        ratio: np.ndarray = np.log((hits + 0.5) / (tokens.sum() - hits + 0.5))
        return ratio

    difference: np.ndarray = logit(unsafe) - logit(safe)
    return difference


def _topic(unsafe: Group, control: Control | None, phase: Phase, how: Statistics) -> dict[str, np.ndarray]:
    """Return the difference from control prompts on the same topics, [L, E] each, NaN without such prompts."""
    if control is None:
        return {name: np.full(unsafe.counts.counts.shape[2:], np.nan) for name in TOPIC_COLUMNS}
    _check_same_model(unsafe.counts, control.group.counts)
    harmful, benign = (views.by_prompt(group.counts, phase) for group in (unsafe, control.group))
    if control.pairs.keys:
        differences, sizes = _by_pair_group(unsafe, control, harmful, benign)
        center = differences.sum(axis=0) / sizes.sum()
        interval = paired_interval(differences, sizes, resamples=how.resamples, seed=how.seed)
        p_value = paired_test(
            differences, permutations=how.permutations, seed=how.seed, direction=how.direction
        ).p_value
    else:
        view, is_unsafe = _together(unsafe.samples(harmful), control.group.samples(benign))
        center = harmful.pooled() - benign.pooled()
        interval, p_value = _tested(view, is_unsafe, how)
    columns = (center, interval.low, interval.high, p_value, q_values(p_value))
    return dict(zip(TOPIC_COLUMNS, columns, strict=True))


def _by_pair_group(unsafe: Group, control: Control, harmful: Usage, benign: Usage) -> Usage:
    """Return the pairs' differences summed over groups of pairs that repeat one another, and the groups' sizes."""
    differences, kept = pair_differences(harmful, benign, control.pairs)
    pairs = Usage(differences, np.ones(len(differences)))
    if unsafe.groups is None or control.group.groups is None:
        return pairs
    return pairs.summed(pair_groups(control.pairs, unsafe.groups, control.group.groups)[kept])


def joined(parts: Sequence[Group], groups: np.ndarray | None = None) -> Group:
    """Put the prompts of several tasks behind one another.

    Args:
        parts: the prompts of each task; groups of their own are left aside, since prompts repeat across tasks too.
        groups: the group of near-duplicates of each prompt.
    """
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return Group(
        join([part.counts for part in parts]),
        join_tokens(tokens) if len(tokens) == len(parts) else None,
        groups,
    )
