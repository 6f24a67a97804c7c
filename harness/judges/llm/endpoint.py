"""Requests to the judging model: each has one deadline, and whatever is not its answer is a failure with a reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from harness.base.documents import parse_json
from harness.base.errors import BadInputError
from harness.judges.llm.settings import LlmSettings

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

T = TypeVar("T")
_MOST_BYTES = 4_000_000
_MOST_REDIRECTS = 3
_MOST_TOKENS = 10**9
# Of an answer that ended so, the text is not the model's, or not all of it.
_NO_ENDINGS = ("error", "content_filter")
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ASKED_FOR = 0.5, 8.0, 60.0


class FailedError(Exception):
    """A request that brought no answer, with the reason.

    Attributes:
        status: of the answer that was an error; None where there was none.
        passing: whether the same request may succeed later.
        unreachable: whether no connection came about, or none that lasted.
        wait: seconds that the server asks to wait.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        passing: bool = True,
        unreachable: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.status, self.passing, self.unreachable, self.wait = status, passing, unreachable, wait


@dataclass(frozen=True)
class Reply:
    """What the judging model said.

    Attributes:
        content: its text.
        tokens: read and made, by the server's count; 0 where it says nothing sensible.
    """

    content: str
    tokens: tuple[int, int]


class Endpoint:
    """An OpenAI-compatible server.

    Args:
        session: sends the requests.
        settings: where it is and how it is asked.
    """

    def __init__(self, session: ClientSession, settings: LlmSettings) -> None:
        self._session = session
        self._settings = settings

    async def check(self) -> None:
        """Stop before the first paid request where no request can succeed.

        Raises:
            BadInputError: nothing answers, or the key is refused.
        """
        where = self._settings.base_url
        try:
            await self._repeated(partial(self._sent, "GET", "models"), min(2, self._settings.retries))
        except FailedError as failure:
            if failure.status in (401, 403):
                raise BadInputError(f"judge 'llm': {where} refuses the key ({failure.status})") from None
            if failure.unreachable:
                raise BadInputError(f"judge 'llm': nothing answers at {where}") from None
            # Not every server lists its models; the requests themselves will show.

    async def complete(self, text: str, json_schema: Mapping[str, Any]) -> Reply:
        """Return what the model says to a text.

        Raises:
            FailedError: it says nothing that can be read, also after the retries.
        """
        settings = self._settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": settings.max_tokens,
        }
        if settings.structured:
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}

        async def asked() -> Reply:
            return _reply(await self._sent("POST", "chat/completions", body))

        return await self._repeated(asked, settings.retries)

    async def _repeated(self, request: Callable[[], Awaitable[T]], retries: int) -> T:
        for attempt in range(retries + 1):
            try:
                return await request()
            except FailedError as failure:
                if not failure.passing:
                    raise
                if attempt == retries:
                    again = f", also after {retries} {'retry' if retries == 1 else 'retries'}"
                    raise FailedError(
                        f"{failure}{again if retries else ''}",
                        status=failure.status,
                        unreachable=failure.unreachable,
                    ) from None
                wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) * random.uniform(0.75, 1)
                await asyncio.sleep(wait if failure.wait is None else failure.wait)
        raise AssertionError("a request is made at least once")

    async def _sent(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """Return what one request brings under one deadline, from the connection to the last byte."""
        from aiohttp import ClientError

        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._followed(method, path, body)
        except TimeoutError:
            raise FailedError("the endpoint took too long", unreachable=True) from None
        except (ClientError, OSError):
            raise FailedError("the connection to the endpoint was lost", unreachable=True) from None

    async def _followed(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        """Return the body of a request's answer; redirects are followed on the same server alone."""
        settings = self._settings
        url, query = f"{settings.base_url}/{path}", settings.query
        for _ in range(_MOST_REDIRECTS + 1):
            async with self._session.request(
                method, url, json=body, params=query, allow_redirects=False
            ) as response:
                if response.status not in (307, 308):
                    return await _body(response)
                target = urljoin(url, response.headers.get("Location", ""))
            if _server(target) != _server(url):
                raise FailedError(
                    "the endpoint redirects to another server, which is not asked", passing=False
                )
            # A place on the same server says what its query is.
            url, query = target, {}
        raise FailedError("the endpoint redirects without end", passing=False)


@asynccontextmanager
async def connected(settings: LlmSettings) -> AsyncIterator[Endpoint]:
    """Open connections to an endpoint inside the block."""
    from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

    # What is compressed may be a thousand times as large as it looks.
    headers = {"Accept-Encoding": "identity"}
    if settings.authorization is not None:
        headers["Authorization"] = settings.authorization
    async with ClientSession(
        headers=headers,
        auto_decompress=False,
        connector=TCPConnector(limit=settings.concurrency),
        cookie_jar=DummyCookieJar(),
        # The deadline is that of `Endpoint`, redirects included.
        timeout=ClientTimeout(total=None),
        proxy=_proxy(settings.base_url),
    ) as session:
        yield Endpoint(session, settings)


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for an address."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _server(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


async def _body(response: ClientResponse) -> bytes:
    if response.status != 200:
        raise FailedError(
            f"the endpoint answered {response.status}",
            status=response.status,
            passing=response.status in (408, 409, 429) or response.status >= 500,
            wait=_wait(response.headers.get("Retry-After", "")),
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FailedError("the endpoint's answer was compressed, which it was not asked for")
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES:
            raise FailedError(f"the endpoint's answer was longer than {_MOST_BYTES / 1e6:.0f} MB")
    return b"".join(parts)


def _wait(header: str) -> float | None:
    """Return the seconds of a Retry-After header; None without one that can be kept to."""
    try:
        seconds = float(header)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _LONGEST_ASKED_FOR else None


def _reply(raw: bytes) -> Reply:
    """Read a completion; an error is none, whatever text is beside it."""
    unreadable = FailedError("the endpoint's answer was not readable")
    try:
        body = parse_json(raw.decode("utf-8"), "the endpoint")
        if body.get("error"):
            raise unreadable
        (choice,) = body["choices"]
        content = choice["message"]["content"]
        if not isinstance(content, str) or choice.get("error") or choice.get("finish_reason") in _NO_ENDINGS:
            raise unreadable
        usage = body.get("usage")
    except (BadInputError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise unreadable from None
    counts = usage if isinstance(usage, dict) else {}
    return Reply(content, (_count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))))


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else 0
