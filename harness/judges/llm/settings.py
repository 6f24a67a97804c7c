"""Where the judging model is and how it is asked: environment variables, since a key must stay out of run folders."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from harness.base.errors import BadInputError

PREFIX = "HARNESS_LLM_"
KEY = "OPENAI_API_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HIDDEN = "[hidden]"
# A header takes no other characters, and the error of a client that is given one shows the key.
_FITS_A_HEADER = re.compile(r"[\x21-\x7e]*")
# Anything shorter is no secret, and may be part of a word.
_SHORTEST_SECRET = 6


@dataclass(frozen=True)
class LlmSettings:
    """How the judging model is asked.

    Attributes:
        model: its name at the endpoint.
        base_url: the endpoint, such as http://127.0.0.1:8000/v1, without user, password and query.
        query: what the address has behind a question mark, sent with each request and never written anywhere.
        authorization: the header that the endpoint knows the user by; never written anywhere. None where there is none.
        secrets: texts that must not be written anywhere, wherever they come from.
        rubric: a Jinja template over `prompt`, `response` and `fence` in place of the judge's own; None for that.
        structured: whether to ask for structured output; some servers refuse that.
        concurrency: requests at a time.
        retries: of a request that failed for a passing reason; the wait doubles each time.
        timeout: seconds that a request may take, from the connection to the last byte of the answer.
        max_tokens: of a verdict; a model that thinks first needs more.
        cache: folder of answers that were paid for.
        prices: dollars for a million tokens of input and of output; None where unknown.
    """

    model: str
    base_url: str
    query: Mapping[str, str] = field(repr=False)
    authorization: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    rubric: Path | None
    structured: bool
    concurrency: int
    retries: int
    timeout: float
    max_tokens: int
    cache: Path
    prices: tuple[float, float] | None

    def without_secrets(self, text: str) -> str:
        """Return a text that a server sent without the secrets that it was given."""
        for secret in self.secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def read_settings() -> LlmSettings:
    """Read the settings from the environment.

    Raises:
        BadInputError: the model or the endpoint is not named, a key is needed and missing, or a value does not fit.
    """
    model, address = _text("MODEL"), _text("BASE_URL")
    if not model or not address:
        missing = PREFIX + ("MODEL" if not model else "BASE_URL")
        raise BadInputError(
            f"judge 'llm': {missing} is not set: expected {_EXAMPLES[missing.removeprefix(PREFIX)]}"
        )
    base_url, query, userinfo = _parts(address)
    host, key = urlsplit(base_url).hostname, os.environ.get(KEY, "").strip()
    if not key and not userinfo and host not in _LOOPBACK:
        raise BadInputError(f"judge 'llm': {KEY} is not set: {host} will ask for a key")
    if not _FITS_A_HEADER.fullmatch(key):
        raise BadInputError(f"judge 'llm': {KEY}: expected ASCII characters without spaces")
    rubric = Path(_text("RUBRIC")).expanduser() if _text("RUBRIC") else None
    if rubric is not None and not rubric.is_file():
        raise BadInputError(f"judge 'llm': {PREFIX}RUBRIC: no file {rubric}")
    cache = _text("CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / (
        "moe-safety-harness/llm"
    )
    basic = base64.b64encode(userinfo.encode()).decode()
    secrets = {key, basic, userinfo, userinfo.partition(":")[2], *query.values()}
    prices = [_number(name, 0) if _text(name) else None for name in ("PRICE_IN", "PRICE_OUT")]
    return LlmSettings(
        model=model,
        base_url=base_url,
        query=query,
        authorization=f"Basic {basic}" if userinfo else f"Bearer {key}" if key else None,
        secrets=tuple(sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)),
        rubric=rubric,
        structured=_text("STRUCTURED") != "0",
        concurrency=_whole("CONCURRENCY", 8, least=1),
        retries=_whole("RETRIES", 5, least=0),
        timeout=_number("TIMEOUT", 60, above=True),
        max_tokens=_whole("MAX_TOKENS", 64, least=1),
        cache=Path(cache).expanduser(),
        prices=None if prices[0] is None or prices[1] is None else (prices[0], prices[1]),
    )


_EXAMPLES = {"MODEL": "the judging model's name", "BASE_URL": "http://127.0.0.1:8000/v1"}


def _parts(address: str) -> tuple[str, dict[str, str], str]:
    """Return an address without its secrets, its query, and its user with the password.

    Raises:
        BadInputError: it is no address; the message shows nothing of it.
    """
    wrong = BadInputError(
        f"judge 'llm': {PREFIX}BASE_URL: expected an address such as {_EXAMPLES['BASE_URL']}"
    )
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:
        raise wrong from None
    # A "/" in a password ends the host, and the rest of the password is then in the path.
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.path:
        raise wrong
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    place = host if port is None else f"{host}:{port}"
    userinfo = unquote(url.netloc.rpartition("@")[0])
    return f"{url.scheme}://{place}{url.path.rstrip('/')}", dict(parse_qsl(url.query)), userinfo


def _text(name: str) -> str:
    return os.environ.get(PREFIX + name, "").strip()


def _number(name: str, default: float, *, above: bool = False) -> float:
    """Return a number of at least zero, or `above` it."""
    text = _text(name)
    try:
        number = float(text) if text else default
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (above and number == 0):
        bound = "above 0" if above else "of at least 0"
        raise BadInputError(f"judge 'llm': {PREFIX}{name} = {text}: expected a number {bound}")
    return number


def _whole(name: str, default: int, *, least: int) -> int:
    text = _text(name)
    if text and (not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < least):
        raise BadInputError(
            f"judge 'llm': {PREFIX}{name} = {text}: expected a whole number of at least {least}"
        )
    return int(text) if text else default
