"""What a training learns from: prompts of the train split with the answers that its objectives read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.data.conversation import as_messages, asked_in
from harness.data.refusals import refusal_phrasings, refusals_for, thoughts_for
from harness.judges.base import judge_all
from harness.pipeline.answer import own_answers
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.data.task import Kind
    from harness.judges.base import Verdict
    from harness.pipeline.session import Session
    from harness.training.examples import Aim, Example

Rows = list[dict[str, Any]]


def training_conversations(session: Session) -> Rows:
    """Put the training examples together; kept as training/examples.jsonl, the phrasings of refusal as phrasings.json.

    Each objective reads the examples of one aim, and those that some objective reads are made. Benign examples are
    shared evenly between the benign tasks (ordinary prompts and twins), at most `training.retain_per_refusal` for each
    harmful prompt. A benign prompt that the base model itself refuses is left out, since holding on to that answer
    would teach false refusal; so is, where the model's own compliant answer is needed, a harmful one that it refuses.

    Raises:
        BadInputError: an objective is left without an example, since the base model refused all that it would read.
    """
    from harness.training.objectives import aims_of

    aims = aims_of(session.config.training.objectives)
    harmful = refusals(session)
    rows: Rows = harmful if "refuse" in aims else []
    if "retain" in aims:
        rows = rows + _retained(session, len(harmful))
    if "continue" in aims or "prefer" in aims:
        rows = rows + _beside_compliance(session, harmful, aims)
    _check_complete(session, aims, rows)
    _keep(session, rows, {"trained": refusal_phrasings(), "held_out": refusal_phrasings(held_out=True)})
    return rows


def _kept_key(session: Session, rows: Rows, phrasings: dict[str, list[str]]) -> str:
    return fingerprint([rows, phrasings])


@stage("training examples", writes=(str(PATHS.examples), str(PATHS.phrasings)), key=_kept_key)
def _keep(session: Session, rows: Rows, phrasings: dict[str, list[str]]) -> None:
    write_jsonl(session.folder.layout.examples, rows)
    write_json(session.folder.layout.phrasings, phrasings)


def refusals(session: Session) -> Rows:
    """Return the harmful train prompts, each with the refusal that it is to get."""
    rows: Rows = []
    seed, thinks = session.config.seed, session.config.training.refusal_thought
    for task, prompts in session.plan.train_prompts("harmful").items():
        for prompt, refusal, thought in zip(
            prompts, refusals_for(prompts, seed), thoughts_for(prompts, seed), strict=True
        ):
            row = _row("refuse", task, prompt.id, prompt.text, refusal, finished=True)
            row |= {"messages": as_messages(prompt.turns)} if prompt.turns else {}
            rows.append(row | {"thought": thought} if thinks else row)
    return rows


def _row(aim: Aim, task: str, id: str, prompt: str, answer: str, *, finished: bool) -> dict[str, Any]:
    return {"task": task, "id": id, "prompt": prompt, "answer": answer, "finished": finished, "aim": aim}


def _retained(session: Session, harmful: int) -> Rows:
    """Return benign train prompts with the base model's own answers."""
    complied = _complied(session, "benign")
    quota = round(session.config.training.retain_per_refusal * harmful)
    shares = even_shares(quota, {task: len(rows) for task, rows in complied.items()})
    return [
        _row("retain", task, row["id"], row["prompt"], row["response"], finished=_is_finished(row))
        | {name: row[name] for name in ("tokens", "messages") if name in row}
        for task, share in shares.items()
        for row in complied[task][:share]
    ]


def _is_finished(row: Mapping[str, Any]) -> bool:
    return bool(row["finish_reason"] == "stop")


def _beside_compliance(session: Session, harmful: Rows, aims: Sequence[Aim]) -> Rows:
    """Return refusals beside what the base model says instead: in place of its answer, and after its beginning."""
    complied = _complied(session, "harmful")
    answers = {(task, row["id"]): row for task, rows in complied.items() for row in rows}
    pairs = [(row, own) for row in harmful if (own := answers.get((row["task"], row["id"])))]
    rows: Rows = []
    if "continue" in aims:
        fewest, most = session.config.training.opening_tokens
        for row, own in pairs:
            tokens = random.Random(f"{session.config.seed} opening {row['id']}").randint(fewest, most)
            begun = {"aim": "continue", "own": own["response"], "opening_tokens": tokens}
            # Whoever is already answering thinks no more.
            rows.append({key: row[key] for key in row if key != "thought"} | begun)
    if "prefer" in aims:
        for row, own in pairs:
            rejected = {
                "rejected": own["response"],
                "rejected_finished": _is_finished(own),
                "rejected_tokens": own["tokens"],
            }
            rows.append(row | {"aim": "prefer"} | rejected)
    return rows


def _complied(session: Session, kind: Kind) -> dict[str, Rows]:
    """Return the base model's own answers to what is trained on, those that are no refusal, by task."""
    return {
        task: [row for row, verdict in judged if verdict.label == "compliance"]
        for task, judged in _judged(session, kind).items()
    }


def _judged(session: Session, kind: Kind) -> dict[str, list[tuple[dict[str, Any], Verdict]]]:
    """Return the base model's own answers to what is trained on, each with its verdict, by task."""
    asked = {task: {p.id for p in prompts} for task, prompts in session.plan.train_prompts(kind).items()}
    answers = own_answers(session, kind)
    verdicts = session.once(
        ("verdicts on own answers", fingerprint(answers)),
        lambda: {task: judge_all(session.plan.judge, rows) for task, rows in answers.items()},
    )
    return {
        task: [pair for pair in zip(rows, verdicts[task], strict=True) if pair[0]["id"] in asked[task]]
        for task, rows in answers.items()
    }


def _check_complete(session: Session, aims: Sequence[Aim], rows: Rows) -> None:
    """Refuse a training where some objective has nothing to read: it would not be the training that was asked for."""
    from harness.training.objectives import reading

    objectives, made = session.config.training.objectives, {row["aim"] for row in rows}
    empty = [aim for aim in aims if aim not in made]
    if empty:
        kind: Kind = "benign" if "retain" in empty else "harmful"
        alike = [aim for aim in empty if (aim == "retain") == (kind == "benign")]
        names = " and ".join(name for aim in alike for name in reading(objectives, aim))
        verdicts = [verdict for judged in _judged(session, kind).values() for _, verdict in judged]
        found = Counter(verdict.reason or f"a {verdict.label}" for verdict in verdicts)
        counted = "; ".join(f"{count}: {reason}" for reason, count in found.most_common())
        raise BadInputError(
            f"training.objectives: no example is left for {names}. Expected answers of the base model that comply with "
            f"{kind} train prompts, found of {len(verdicts)} answers {counted}"
        )
    retained = [row for row in rows if row["aim"] == "retain"]
    if retained and not any(row["finished"] for row in retained):
        say(
            f"training: all {len(retained)} of the model's own answers are truncated, so nothing shows how a benign "
            "answer ends; raise --max-new-tokens"
        )


def even_shares(quota: int, available: Mapping[str, int]) -> dict[str, int]:
    """Share a quota out evenly between tasks; what one cannot fill goes to the others."""
    shares: dict[str, int] = {}
    for place, (task, rows) in enumerate(sorted(available.items(), key=lambda item: (item[1], item[0]))):
        shares[task] = min(rows, (quota - sum(shares.values())) // (len(available) - place))
    return {task: shares[task] for task in available}


def to_examples(session: Session, conversations: Rows) -> list[Example]:
    """Tokenise conversations, aim by aim; once for all trained variants."""
    from harness.training.examples import AIMS

    def examples() -> list[Example]:
        by_aim = {aim: [row for row in conversations if row["aim"] == aim] for aim in AIMS}
        return [example for aim, rows in by_aim.items() for example in _examples(session, rows, aim)]

    return session.once(("examples", fingerprint(conversations)), examples)


def _examples(session: Session, rows: Rows, aim: Aim) -> list[Example]:
    from harness.training.examples import make_examples

    chat = session.engine.chat

    def examples(
        answer: str,
        finished: str,
        tokens: str,
        openings: list[str] | None = None,
        thoughts: list[str] | None = None,
    ) -> list[Example]:
        # The model's own answers are learnt as it emitted them.
        answers = [row[tokens if tokens in row else answer] for row in rows]
        whole = [row[finished] for row in rows]
        prompts, end = [asked_in(row) for row in rows], chat.turn.end(session.loaded.ends)
        return make_examples(chat, prompts, answers, whole, end, aim, openings, thoughts)

    if aim == "continue":
        return examples("answer", "finished", "tokens", [_opening(session, row) for row in rows])
    thoughts = [row["thought"] for row in rows] if all("thought" in row for row in rows) else None
    learnt = examples("answer", "finished", "tokens", thoughts=thoughts)
    if aim == "prefer":
        rejected = examples("rejected", "rejected_finished", "rejected_tokens")
        return [replace(a, rejected=b.answer) for a, b in zip(learnt, rejected, strict=True)]
    return learnt


def _opening(session: Session, row: Mapping[str, Any]) -> str:
    """Return the first tokens of the model's own answer, at most half of it, as text."""
    tokenizer = session.loaded.tokenizer
    ids = tokenizer(row["own"], add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids[: max(1, min(row["opening_tokens"], len(ids) // 2))])).rstrip()
