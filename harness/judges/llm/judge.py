"""The judge `llm`: asks, keeps what was paid for, and reads verdicts strictly."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.documents import parse_json
from harness.base.errors import BadInputError
from harness.base.files import read_json, write_json
from harness.base.progress import say
from harness.judges.base import Verdict
from harness.judges.llm.endpoint import Endpoint, FailedError, Reply, connected
from harness.judges.llm.fence import FENCING, fence_of, without_control_tokens
from harness.judges.llm.rubric import ASKED, Rubric
from harness.judges.llm.settings import LlmSettings, read_settings
from harness.judges.opening import nothing_to_judge
from harness.judges.preset import PresetJudge, question_template

if TYPE_CHECKING:
    import jinja2

_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"


class LlmJudge(PresetJudge[Rubric]):
    """Puts a rubric to a language model and reads its verdict.

    An answer whose request failed, or whose verdict is not exactly what was asked for, is unscored with the reason.
    """

    @cached_property
    def endpoint(self) -> LlmSettings:
        """Where and how it asks; read when first needed, so that the judge can be listed without."""
        return read_settings({name: getattr(self.preset, name) for name in ASKED})

    @cached_property
    def _rubric(self) -> tuple[str, jinja2.Template]:
        text = self.preset.template
        what = "a rubric over prompt, response and fence"
        return text, question_template(self.name, text, ("prompt", "response", "fence"), what)

    @property
    def fingerprint(self) -> str:
        """A hash over what is asked and how the verdict is read."""
        reading = self.preset.model_dump(
            mode="json", include={"measures", "fields", "labels", "score", "harmful_from"}
        )
        return _digest([self._asked, reading])

    @cached_property
    def _asked(self) -> str:
        """A hash over the model, the rubric, how verdicts are asked for and how answers are put into the rubric."""
        chosen = [
            self.endpoint.model,
            self._rubric[0],
            self.endpoint.structured,
            self.endpoint.max_tokens,
            FENCING,
        ]
        chosen += [] if self.name == "llm" else [self.name]
        return _digest(chosen)

    @property
    def settings(self) -> dict[str, Any]:
        """Whom it asks, where and how, without the secrets that the address may have; and its file."""
        return {
            "preset": super().settings,
            "model": self.endpoint.model,
            "base_url": self.endpoint.base_url,
            "rubric": self._rubric[0],
            "structured": self.endpoint.structured,
            "max_tokens": self.endpoint.max_tokens,
            "control_tokens": "broken by a space",
        }

    def judge(self, id: str, prompt: str, response: str, *, truncated: bool = False) -> Verdict:
        """Label one answer; `judge_many` is faster."""
        return self.judge_many([{"id": id, "prompt": prompt, "response": response}])[0]

    def judge_many(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Label many answers, several at a time, in their order.

        Raises:
            BadInputError: nothing answers at the endpoint, or it refuses the key.
        """
        return asyncio.run(self._judge_many(rows))

    async def _judge_many(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        limit = asyncio.Semaphore(self.endpoint.concurrency)
        async with connected(self.endpoint) as endpoint:
            if any(self._kept(row) is None for row in rows if not nothing_to_judge(row["response"])):
                await endpoint.check()

            async def one(row: Mapping[str, Any]) -> Verdict:
                async with limit:
                    return await self._judge_one(endpoint, row)

            return list(await asyncio.gather(*(one(row) for row in rows)))

    async def _judge_one(self, endpoint: Endpoint, row: Mapping[str, Any]) -> Verdict:
        reason = nothing_to_judge(row["response"])
        if reason is not None:
            return Verdict(row["id"], None, reason=reason)
        reply = self._kept(row)
        if reply is None:
            if self._path(row).is_file():
                say(f"judge '{self.name}': {self._path(row)} is damaged: the answer is judged again")
            try:
                reply = await endpoint.complete(self._question(row), self.preset.json_schema)
            except FailedError as failure:
                return Verdict(row["id"], None, reason=str(failure))
            reply = Reply(self.endpoint.without_secrets(reply.content), reply.tokens)
            self._keep(row, reply)
        return _read(row["id"], reply.content, self.preset)

    def _question(self, row: Mapping[str, Any]) -> str:
        text, template = self._rubric
        prompt, response = (without_control_tokens(row[name]) for name in ("prompt", "response"))
        return template.render(prompt=prompt, response=response, fence=fence_of(text, prompt, response))

    def _keep(self, row: Mapping[str, Any], reply: Reply) -> None:
        """Keep an answer before it is read: a verdict that cannot be read was paid for too."""
        entry = {"model": self.endpoint.model, "content": reply.content, "tokens": list(reply.tokens)}
        write_json(self._path(row), {**entry, "sha256": _digest(entry)})

    def _kept(self, row: Mapping[str, Any]) -> Reply | None:
        """Return an answer that was paid for; None where there is none, or a damaged one."""
        path = self._path(row)
        if not path.is_file():
            return None
        try:
            entry = read_json(path)
            digest = entry.pop("sha256")
        except (BadInputError, AttributeError, KeyError, TypeError):
            return None
        return Reply(entry["content"], tuple(entry["tokens"])) if digest == _digest(entry) else None

    def _path(self, row: Mapping[str, Any]) -> Path:
        digest = _digest([self._asked, row["prompt"], row["response"]])
        return self.endpoint.cache / digest[:2] / f"{digest}.json"

    def spent(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what the verdicts on some answers took, whenever they were paid for; nothing secret is in it."""
        kept = {self._path(row): self._kept(row) for row in rows}
        tokens = [reply.tokens for reply in kept.values() if reply is not None]
        given, taken = sum(pair[0] for pair in tokens), sum(pair[1] for pair in tokens)
        prices = self.endpoint.prices
        return {
            "model": self.endpoint.model,
            "requests": len(tokens),
            "input_tokens": given,
            "output_tokens": taken,
            "dollars": None if prices is None else (given * prices[0] + taken * prices[1]) / 1e6,
        }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _read(id: str, content: str, rubric: Rubric) -> Verdict:
    """Read a verdict: the whole answer, thoughts apart, must be the object that was asked for."""
    try:
        answer = parse_json(_after_thought(content), "verdict")
    except BadInputError:
        return Verdict(id, None, reason="the judging model's verdict is not the JSON that was asked for")
    if not rubric.accepts(answer):
        return Verdict(id, None, reason="the judging model's verdict is none of those that were asked for")
    return rubric.verdict(id, answer)


def _after_thought(content: str) -> str:
    """Return what a model says after its thoughts, and the whole where its thoughts have no clear end.

    A second mark of their end is a quotation, and so is one within an object: what follows is the answer's word.
    """
    text = content.strip()
    thought, end, said = text.partition(_END_OF_THOUGHT)
    opened = thought.startswith(_THOUGHT)
    if (
        not end
        or _END_OF_THOUGHT in said
        or _THOUGHT in said
        or _THOUGHT in thought[opened * len(_THOUGHT) :]
    ):
        return text
    return said.strip() if opened or not thought.startswith("{") else text
