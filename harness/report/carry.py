"""What is said of the trained experts that carry the effect."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.carry import Half
from harness.report.words import hundredths, interval
from harness.runs.records import Carried, CarryRecord, CarryStep

Row = dict[str, str]


def in_words(variant: str, found: CarryRecord) -> list[str]:
    """Return the numbers that carry half of the effect, and what they rest on."""
    first, last = found.by_rank[0].harmful, found.by_rank[-1].harmful
    asked = f"{first.scored + first.unscored} harmful prompts"
    whole = (
        f"{variant} refuses {_share(first)} of {asked}, and {_share(last)} with all {found.experts} trained experts "
        "put back to base"
    )
    if found.half_by_rank is None or found.half_at_random is None:
        return [f"{whole}: there is no effect whose half could be carried."]
    numbers = [number for number in found.half_of_each if number is not None]
    return [
        f"{whole}.",
        f"Half of the effect is gone once {_number(found.half_by_rank)} are put back by rank, the highest score first; "
        f"in {len(numbers)} random orders once {_number(found.half_at_random)} are on average, "
        f"from {min(numbers):g} to {max(numbers):g}.",
    ]


def steps_table(found: CarryRecord) -> list[Row]:
    """Return the rates at each step."""
    return [
        {
            "put back": f"{ranked.put_back} of {found.experts}",
            "refusal % by rank": _cell(ranked.harmful),
            "false refusal % by rank": _cell(ranked.benign),
            "refusal % at random": _cell(drawn.harmful),
            "false refusal % at random": _cell(drawn.benign),
        }
        for ranked, drawn in _both(found)
    ]


def _both(found: CarryRecord) -> Sequence[tuple[CarryStep, CarryStep]]:
    return list(zip(found.by_rank, found.random, strict=True))


def _cell(rate: Carried) -> str:
    if rate.value is None:
        return "no value"
    return f"{hundredths(rate.value)} ({interval(rate.low, rate.high, hundredths)})"


def _share(rate: Carried) -> str:
    return "none that was scored" if rate.value is None else f"{hundredths(rate.value)}%"


def _number(half: Half) -> str:
    ends = interval(half.low, half.high, "{:.1f}".format)
    known = f"95% interval over prompts {ends}" if ends else "the effect is too uncertain for an interval"
    return f"{half.value:.3g} ({known})"
