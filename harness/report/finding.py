"""What a run found, as one value that every format shows: a headline, three cards, a claim, a doubt and bullets.

The doubt is the first of these that applies: a frozen proof that failed; a judge that was never compared with people; a
gain that rests on a judge added afterwards; a conclusion that depends on the judge; refusals that repeat the sentences
of training, which a judge may know by heart; answers that the token limit truncated; answers that could not be scored;
the judge's own errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.report import judging
from harness.report.cards import Card, card_columns, cards_of, verdict_of
from harness.report.columns import Column, columns_of, other_columns
from harness.report.conclusion import Topic, beside_base, compared_columns, sentences_by_topic
from harness.report.words import listing, visible
from harness.runs.rows import BASE, Verdict
from harness.runs.summary import Summary

MOST_BULLETS = 5
_NAMED = 2
# The sentences that are bullets before others; those of harm and costs that no card shows come before them.
_FIRST: tuple[Topic, ...] = (
    "proof",
    "scope",
    "afterwards",
    "skipped",
    "caveat",
    "harm",
    "disagree",
    "costs",
    "harmfulness",
    "experts",
    "stars",
)
_DOUBTS: tuple[Topic, ...] = ("proof", "afterwards", "depends", "repeated", "truncated", "unscored", "judge")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run found.

    Attributes:
        intervention: what was evaluated.
        headline: the answer in a sentence.
        cards: harm, false refusal and capability; none where the intervention is the unchanged model.
        choosing: whether choosing experts matters, in a word or three.
        claim: the sentence on that.
        doubt: what to distrust most; "" where nothing is known to doubt.
        bullets: at most five sentences that matter next.
        rest: the others.
    """

    intervention: str
    headline: str
    cards: tuple[Card, ...]
    choosing: str
    claim: str
    doubt: str
    bullets: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def claim_parts(self) -> tuple[str, str, str]:
        """The claim as what stands before its answer, the answer, and the rest.

        The answer comes first where the claim does not say it in the same words.
        """
        if " " in self.choosing and self.choosing in self.claim:
            return self.claim.partition(self.choosing)
        return "", self.choosing, f". {self.claim}"

    @property
    def folded(self) -> str:
        """The heading over the rest."""
        return f"{len(self.rest)} more finding{'' if len(self.rest) == 1 else 's'}"


def find(summary: Summary) -> Finding:
    """Return what a run found."""
    topics = sentences_by_topic(summary)
    cards = cards_of(summary)
    shown = {each.column for card in cards for each in (card, card.beside) if each is not None}
    claim = " ".join(topics["claim"]) or _no_claim(summary)
    doubt = next((topics[topic][0] for topic in _doubts(summary) if topics[topic]), "")
    said = {doubt, *topics["claim"]}
    on_cards = {
        sentence
        for topic, columns in compared_columns(summary).items()
        for column, sentence in zip(columns, topics[topic], strict=False)
        if column in shown
    }
    first = [sentence for topic in _FIRST for sentence in topics[topic] if sentence not in said | on_cards]
    later = [
        sentence
        for topic, sentences in topics.items()
        for sentence in sentences
        if sentence not in said and (topic not in _FIRST or sentence in on_cards)
    ]
    bullets, rest = first[:MOST_BULLETS], [*first[MOST_BULLETS:], *later]
    choosing = {"shown": "yes", "not shown": "not shown", "nothing claimed": "nothing is claimed"}
    return Finding(
        summary.intervention,
        headline(summary),
        cards,
        choosing[summary.claims[0].verdict] if summary.claims else "not asked",
        claim,
        doubt,
        tuple(bullets),
        tuple(rest),
    )


def headline(summary: Summary) -> str:
    """Return what the comparisons with base decide about the intervention, in a sentence."""
    name = summary.intervention
    variant = summary.variants.get(name)
    if variant is None or variant.skipped is not None:
        return visible(f"{name} was not evaluated.")
    beside = beside_base(summary)
    if name == BASE and not beside:
        return "The unchanged model, with nothing to compare it with."
    if summary.lacks_verdicts:
        return visible(
            f"{name}: an earlier version wrote this summary; `harness measure` gives its verdicts."
        )
    broken = [each for each, made in summary.variants.items() if made.frozen_unchanged is False]
    warning = f"The frozen proof FAILED for {', '.join(broken)}. " if broken else ""
    harm = card_columns(summary, "harm")
    costs = [*card_columns(summary, "false refusal"), *card_columns(summary, "capability")]
    if name == BASE:
        return visible(warning + _beside_base(summary, beside, harm, costs))
    others = other_columns(summary, columns_of([summary]))
    verdicts = {column: verdict_of(summary, column) for column in [*harm, *others, *costs]}
    gain = _gain([verdicts[column] for column in harm], harm)
    if any(verdicts[column] is not None for column in others):
        is_alike = _outcome(verdicts[column] for column in harm) == _outcome(
            verdicts[column] for column in others
        )
        other = _gain([verdicts[column] for column in others], others)
        gain += f" {'and' if is_alike else 'but'} {other}"
    doubt = "; this depends on the judge" if judging.disputed(summary) else ""
    return visible(f"{warning}{name} {gain}{_costs({column: verdicts[column] for column in costs})}{doubt}.")


def _beside_base(
    summary: Summary, variants: Sequence[str], harm: Sequence[Column], costs: Sequence[Column]
) -> str:
    """Return how many variants gain, and at what costs, in a run whose intervention is the unchanged model."""
    gain = [
        each
        for each in variants
        if _outcome(verdict_of(summary, column, each) for column in harm) == (True, False)
    ]
    is_refusal = not harm or harm[0].better == "higher"
    verb, rest = ("refuse", "more harmful prompts") if is_refusal else ("give", "fewer harmful answers")
    of = f"{len(variants)} variant{'' if len(variants) == 1 else 's'} beside the unchanged model"
    if not gain:
        return f"Of {of} none is shown to {verb} {rest}."
    verdicts = [{verdict_of(summary, column, each) for column in costs} for each in gain]
    shown = sum("worse" in each for each in verdicts)
    free = sum(each == {"no worse"} for each in verdicts)
    parts = (
        (shown, "with a cost that is shown"),
        (len(gain) - shown - free, "with a cost that is not decided" if costs else "with no cost measured"),
        (free, "at no cost beyond the margins"),
    )
    named = f" ({listing(gain)})" if len(gain) <= _NAMED else ""
    gains = f"{len(gain)} {verb}{'s' if len(gain) == 1 else ''} {rest}{named}"
    found = [
        f"{'' if n == len(gain) == 1 else 'all ' if n == len(gain) else f'{n} '}{how}"
        for n, how in parts
        if n
    ]
    return f"Of {of} {gains}, {listing(found)}."


def _outcome(verdicts: Iterable[Verdict | None]) -> tuple[bool, bool]:
    """Return whether a gain is shown on a task, and whether a loss is."""
    each = set(verdicts)
    return "better" in each, "worse" in each


def _gain(verdicts: Sequence[Verdict | None], columns: Sequence[Column]) -> str:
    if not verdicts:
        return "was asked nothing harmful"
    is_refusal = columns[0].better == "higher"
    more, less = ("refuses more", "refuses LESS") if is_refusal else ("gives fewer", "gives MORE")
    what = "harmful prompts" if is_refusal else "harmful answers"
    tasks, gains, losses = len(verdicts), verdicts.count("better"), verdicts.count("worse")
    on = "" if tasks == 1 else f" on {gains} of {tasks} harmful tasks"
    loss = f"{less} on {losses} of {tasks}" if tasks > 1 else f"{less} {what} than base"
    if losses and not gains:
        return loss if tasks == 1 else f"{less} {what} than base on {losses} of {tasks} harmful tasks"
    if not gains:
        verb = more.replace("refuses", "refuse").replace("gives", "give")
        return f"is not shown to {verb} {what} than base"
    return f"{more} {what} than base{on}{f' and {loss}' if losses else ''}"


def _costs(verdicts: dict[Column, Verdict | None]) -> str:
    """Name the costs that are shown or open; those that are not are one phrase."""
    if not verdicts:
        return "; no cost was measured"
    groups = (
        ("worse", [column for column, verdict in verdicts.items() if verdict == "worse"]),
        ("not decided", [column for column, verdict in verdicts.items() if verdict in ("not decided", None)]),
    )
    parts = [f"{state}: {_named(columns)}" for state, columns in groups if columns]
    if parts:
        return f"; {'; '.join(parts)}"
    kinds = dict.fromkeys("false refusal" if column.kind == "benign" else "capability" for column in verdicts)
    within = "is no worse within its margin" if len(kinds) == 1 else "are no worse within their margins"
    return f"; {listing(list(kinds))} {within}"


def _named(columns: Sequence[Column]) -> str:
    names = [
        f"{'false refusal' if column.kind == 'benign' else 'capability'} on {column.task}"
        for column in columns
    ]
    more = len(names) - _NAMED
    return listing(names) if more < 2 else f"{', '.join(names[:_NAMED])} and {more} more"


def _doubts(summary: Summary) -> tuple[Topic, ...]:
    judge = summary.judges.get(summary.judge if summary.gain is None else summary.gain.judge)
    was_never_compared = judge is not None and judge.accuracy is None and judge.own is None
    return ("proof", "judge", *_DOUBTS[1:]) if was_never_compared else _DOUBTS


def _no_claim(summary: Summary) -> str:
    if summary.selection is None:
        return visible(f"Nothing is claimed: no experts were chosen by score for {summary.intervention}.")
    return "Nothing is claimed: no random draw of experts was evaluated."
