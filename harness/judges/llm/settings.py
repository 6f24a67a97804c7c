"""Where the judging model is and how it is asked: environment variables, since a key must stay out of run folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from harness.base.errors import BadInputError

PREFIX = "HARNESS_LLM_"
KEY = "OPENAI_API_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class LlmSettings:
    """How the judging model is asked.

    Attributes:
        model: its name at the endpoint.
        base_url: the endpoint, such as http://127.0.0.1:8000/v1.
        key: what the endpoint knows the user by; never written anywhere.
        rubric: a Jinja template over `prompt` and `response` in place of the judge's own; None for that.
        structured: whether to ask for structured output; some servers refuse that.
        concurrency: requests at a time.
        retries: of a request that failed for a passing reason; the client waits longer each time.
        timeout: seconds that a request may take.
        max_tokens: of a verdict; a model that thinks first needs more.
        cache: folder of answers that were paid for.
        prices: dollars for a million tokens of input and of output; None where unknown.
    """

    model: str
    base_url: str
    key: str
    rubric: Path | None
    structured: bool
    concurrency: int
    retries: int
    timeout: float
    max_tokens: int
    cache: Path
    prices: tuple[float, float] | None

    def __repr__(self) -> str:
        return f"LlmSettings(model={self.model!r}, base_url={self.base_url!r})"


def read_settings() -> LlmSettings:
    """Read the settings from the environment.

    Raises:
        BadInputError: the client is not installed, the model or the endpoint is not named, a key is needed and
            missing, or a value does not fit.
    """
    if find_spec("openai") is None:
        raise BadInputError("judge 'llm' needs the package openai: pip install 'moe-safety-harness[llm]'")
    model, base_url = _text("MODEL"), _text("BASE_URL")
    if not model or not base_url:
        missing = PREFIX + ("MODEL" if not model else "BASE_URL")
        raise BadInputError(
            f"judge 'llm': {missing} is not set: expected {_EXAMPLES[missing.removeprefix(PREFIX)]}"
        )
    host = urlsplit(base_url).hostname
    if urlsplit(base_url).scheme not in ("http", "https") or not host:
        raise BadInputError(
            f"judge 'llm': {PREFIX}BASE_URL: expected an address such as {_EXAMPLES['BASE_URL']}"
        )
    key = os.environ.get(KEY, "")
    if not key and host not in _LOOPBACK:
        raise BadInputError(f"judge 'llm': {KEY} is not set: {host} will ask for a key")
    rubric = Path(_text("RUBRIC")) if _text("RUBRIC") else None
    if rubric is not None and not rubric.is_file():
        raise BadInputError(f"judge 'llm': {PREFIX}RUBRIC: no file {rubric}")
    cache = _text("CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / (
        "moe-safety-harness/llm"
    )
    prices = (_number("PRICE_IN", -1), _number("PRICE_OUT", -1))
    return LlmSettings(
        model=model,
        base_url=base_url,
        # The client insists on one, and a local server takes any.
        key=key or "none",
        rubric=rubric,
        structured=_text("STRUCTURED") != "0",
        concurrency=max(1, int(_number("CONCURRENCY", 8))),
        retries=max(0, int(_number("RETRIES", 5))),
        timeout=_number("TIMEOUT", 60),
        max_tokens=max(1, int(_number("MAX_TOKENS", 64))),
        cache=Path(cache),
        prices=prices if min(prices) >= 0 else None,
    )


_EXAMPLES = {"MODEL": "the judging model's name", "BASE_URL": "http://127.0.0.1:8000/v1"}


def _text(name: str) -> str:
    return os.environ.get(PREFIX + name, "").strip()


def _number(name: str, default: float) -> float:
    text = _text(name)
    try:
        return float(text) if text else default
    except ValueError:
        raise BadInputError(f"judge 'llm': {PREFIX}{name} = {text}: expected a number") from None
