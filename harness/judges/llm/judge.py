"""The judge `llm`: asks, keeps what was paid for, and reads verdicts strictly."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jinja2

from harness.base.errors import BadInputError
from harness.base.files import read_json, write_json
from harness.judges.base import Verdict
from harness.judges.llm.rubric import Rubric
from harness.judges.llm.settings import LlmSettings, read_settings
from harness.judges.opening import nothing_to_judge
from harness.judges.preset import PresetJudge

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_END_OF_THOUGHT = "</think>"


class LlmJudge(PresetJudge[Rubric]):
    """Puts a rubric to a language model and reads its verdict.

    An answer whose request failed, or whose verdict is not exactly what was asked for, is unscored with the reason.
    """

    @cached_property
    def endpoint(self) -> LlmSettings:
        """Where and how it asks; read when first needed, so that the judge can be listed without."""
        return read_settings()

    @cached_property
    def _rubric(self) -> tuple[str, jinja2.Template]:
        path = self.endpoint.rubric
        text = self.preset.template if path is None else path.read_text(encoding="utf-8")
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        try:
            template = environment.from_string(text)
            template.render(prompt="", response="")
        except jinja2.TemplateError as error:
            raise BadInputError(f"{path}: not a rubric over prompt and response ({error})") from None
        return text, template

    @property
    def fingerprint(self) -> str:
        """A hash over the model, the rubric and how verdicts are asked for."""
        chosen = [self.settings[name] for name in ("model", "rubric", "structured", "max_tokens")]
        chosen += [] if self.name == "llm" else [self.name]
        return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """Whom it asks, where and how; without a key that the address may hold."""
        url = urlsplit(self.endpoint.base_url)
        return {
            "model": self.endpoint.model,
            "base_url": f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}",
            "rubric": self._rubric[0],
            "structured": self.endpoint.structured,
            "max_tokens": self.endpoint.max_tokens,
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
        from openai import AsyncOpenAI

        settings = self.endpoint
        limit = asyncio.Semaphore(settings.concurrency)
        async with AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.key,
            max_retries=settings.retries,
            timeout=settings.timeout,
        ) as client:
            if any(not self._path(row).is_file() for row in rows if not nothing_to_judge(row["response"])):
                await self._check(client)

            async def one(row: Mapping[str, Any]) -> Verdict:
                async with limit:
                    return await self._judge_one(client, row)

            return list(await asyncio.gather(*(one(row) for row in rows)))

    async def _check(self, client: AsyncOpenAI) -> None:
        """Stop before the first paid request where no request can succeed."""
        from openai import APIConnectionError, APIError, AuthenticationError, PermissionDeniedError

        where = self.endpoint.base_url
        try:
            await client.with_options(max_retries=2).models.list()
        except (AuthenticationError, PermissionDeniedError) as error:
            raise BadInputError(f"judge 'llm': {where} refuses the key ({error.status_code})") from None
        except APIConnectionError:
            raise BadInputError(f"judge 'llm': nothing answers at {where}") from None
        except APIError:
            # Not every server lists its models; the requests themselves will show.
            return

    async def _judge_one(self, client: AsyncOpenAI, row: Mapping[str, Any]) -> Verdict:
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        reason = nothing_to_judge(row["response"])
        if reason is not None:
            return Verdict(row["id"], None, reason=reason)
        path = self._path(row)
        if path.is_file():
            return _read(row["id"], read_json(path)["content"], self.preset)
        try:
            content = await self._ask(client, row, path)
        except APITimeoutError:
            failure = "the endpoint took too long"
        except APIConnectionError:
            failure = "the connection to the endpoint was lost"
        except APIStatusError as error:
            failure = f"the endpoint answered {error.status_code}"
        except (APIError, ValueError):
            # Half a JSON, or a JSON without what the protocol asks for.
            failure = "the endpoint's answer was not readable"
        else:
            return _read(row["id"], content, self.preset)
        return Verdict(row["id"], None, reason=f"{failure}, also after {self.endpoint.retries} retries")

    async def _ask(self, client: AsyncOpenAI, row: Mapping[str, Any], path: Path) -> str:
        """Ask for one verdict and keep it.

        Raises:
            ValueError: the endpoint's answers are not what the protocol asks for.
            openai.APIError: requests fail.
        """
        settings = self.endpoint
        text = self._rubric[1].render(prompt=row["prompt"], response=row["response"])
        extra: dict[str, Any] = {}
        if settings.structured:
            extra["response_format"] = {"type": "json_schema", "json_schema": self.preset.json_schema}
        # The client repeats requests that failed, but not one whose answer it could not read.
        for attempt in range(settings.retries + 1):
            try:
                completion = await client.chat.completions.create(
                    model=settings.model,
                    messages=[{"role": "user", "content": text}],
                    temperature=0,
                    max_tokens=settings.max_tokens,
                    **extra,
                )
                content, tokens = _content(completion)
                break
            except ValueError:
                if attempt == settings.retries:
                    raise
        # Kept before it is read: a verdict that cannot be read was paid for too.
        write_json(path, {"model": settings.model, "content": content, "tokens": tokens})
        return content

    def _path(self, row: Mapping[str, Any]) -> Path:
        key = json.dumps([self.fingerprint, row["prompt"], row["response"]])
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.endpoint.cache / digest[:2] / f"{digest}.json"

    def spent(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what the verdicts on some answers took, whenever they were paid for; nothing secret is in it."""
        paths = {self._path(row) for row in rows}
        tokens = [read_json(path)["tokens"] for path in paths if path.is_file()]
        given, taken = sum(pair[0] for pair in tokens), sum(pair[1] for pair in tokens)
        prices = self.endpoint.prices
        return {
            "model": self.endpoint.model,
            "requests": len(tokens),
            "input_tokens": given,
            "output_tokens": taken,
            "dollars": None if prices is None else (given * prices[0] + taken * prices[1]) / 1e6,
        }


def _content(completion: Any) -> tuple[str, list[int]]:
    """Return the text of a completion and its tokens; the client checks nothing of what a server sends."""
    try:
        content = completion.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        raise ValueError("no completion") from None
    if not isinstance(content, str):
        raise ValueError("no text in the completion")
    usage = getattr(completion, "usage", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    return content, [count if isinstance(count, int) else 0 for count in counts]


def _read(id: str, content: str, rubric: Rubric) -> Verdict:
    """Read a verdict: the whole answer, thoughts apart, must be the object that was asked for."""
    text = content.rpartition(_END_OF_THOUGHT)[2].strip()
    try:
        answer = json.loads(text)
    except ValueError:
        return Verdict(id, None, reason="the judging model's verdict is not the JSON that was asked for")
    if not rubric.accepts(answer):
        return Verdict(id, None, reason="the judging model's verdict is none of those that were asked for")
    return rubric.verdict(id, answer)
