"""Where the judging model is and how it is asked: by the judge's file, else by environment variables.

A key comes from the environment alone: it must stay out of files and run folders.
"""

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


class _Values:
    """Settings by name: those that are given, else those of the environment."""

    def __init__(self, given: Mapping[str, object]) -> None:
        self._given = {name: value for name, value in given.items() if value is not None}

    def called(self, name: str) -> str:
        """Return what a message calls a setting."""
        return name if name in self._given else PREFIX + name.upper()

    def text(self, name: str) -> str:
        """Return a value as text; "" where there is none."""
        value = self._given.get(name, os.environ.get(PREFIX + name.upper(), ""))
        return str(int(value) if isinstance(value, bool) else value).strip()

    def number(self, name: str, default: float, *, above: bool = False) -> float:
        """Return a number of at least zero, or `above` it."""
        text = self.text(name)
        try:
            number = float(text) if text else default
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0 or (above and number == 0):
            bound = "above 0" if above else "of at least 0"
            raise BadInputError(f"judge 'llm': {self.called(name)} = {text}: expected a number {bound}")
        return number

    def whole(self, name: str, default: int, *, least: int) -> int:
        """Return a whole number of at least `least`."""
        text = self.text(name)
        if text and (not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < least):
            raise BadInputError(
                f"judge 'llm': {self.called(name)} = {text}: expected a whole number of at least {least}"
            )
        return int(text) if text else default


def read_settings(given: Mapping[str, object]) -> LlmSettings:
    """Read the settings.

    Args:
        given: those of the judge's file; what it does not say is read from HARNESS_LLM_... variables.

    Raises:
        BadInputError: the model or the endpoint is not named, a key is needed and missing, or a value does not fit.
    """
    values = _Values(given)
    model, address = values.text("model"), values.text("base_url")
    if not model or not address:
        missing = "model" if not model else "base_url"
        raise BadInputError(
            f"judge 'llm': {values.called(missing)} is not set: expected {_EXAMPLES[missing]}"
        )
    base_url, query, userinfo = _parts(address, values.called("base_url"))
    if (query or userinfo) and "base_url" in given and given["base_url"] is not None:
        raise BadInputError(
            f"judge 'llm': base_url: keep user, password and query in {PREFIX}BASE_URL, not in a file"
        )
    host, key = urlsplit(base_url).hostname, os.environ.get(KEY, "").strip()
    if not key and not userinfo and host not in _LOOPBACK:
        raise BadInputError(f"judge 'llm': {KEY} is not set: {host} will ask for a key")
    if not _FITS_A_HEADER.fullmatch(key):
        raise BadInputError(f"judge 'llm': {KEY}: expected ASCII characters without spaces")
    cache = values.text("cache") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / (
        "moe-safety-harness/llm"
    )
    basic = base64.b64encode(userinfo.encode()).decode()
    secrets = {key, basic, userinfo, userinfo.partition(":")[2], *query.values()}
    prices = [values.number(name, 0) if values.text(name) else None for name in ("price_in", "price_out")]
    return LlmSettings(
        model=model,
        base_url=base_url,
        query=query,
        authorization=f"Basic {basic}" if userinfo else f"Bearer {key}" if key else None,
        secrets=tuple(sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)),
        structured=values.text("structured") != "0",
        concurrency=values.whole("concurrency", 8, least=1),
        retries=values.whole("retries", 5, least=0),
        timeout=values.number("timeout", 60, above=True),
        max_tokens=values.whole("max_tokens", 64, least=1),
        cache=Path(cache).expanduser(),
        prices=None if prices[0] is None or prices[1] is None else (prices[0], prices[1]),
    )


_EXAMPLES = {"model": "the judging model's name", "base_url": "http://127.0.0.1:8000/v1"}


def _parts(address: str, called: str) -> tuple[str, dict[str, str], str]:
    """Return an address without its secrets, its query, and its user with the password.

    Raises:
        BadInputError: it is no address; the message shows nothing of it.
    """
    wrong = BadInputError(f"judge 'llm': {called}: expected an address such as {_EXAMPLES['base_url']}")
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
