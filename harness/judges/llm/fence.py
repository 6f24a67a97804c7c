"""How a text goes into a rubric: it cannot close its block, and control tokens that it spells stay text.

Each request's blocks carry a mark. It is a hash of the rubric and of what stands in the blocks, so a request, and with
it what was paid for, stays the same whenever it is made; and it is in none of the texts, since an author would have to
write a text that holds its own hash, and a mark that a text does hold is hashed again.

The tokenizer of a remote model is not at hand, so spellings are those of the common families, and each gets a space
behind its first character: `<|im_end|>` becomes `< |im_end|>`, which no tokenizer reads as a control token, while
invisible characters are what some tokenizers drop.
"""

from __future__ import annotations

import hashlib
import json
import re

_DIGITS = 16
_CONTROL = re.compile(
    # ChatML, Llama 3, gpt-oss, Phi, DeepSeek, Kimi, Command.
    r"<(?=[|｜][^\s<>]{1,64}[|｜]>)"
    # Gemma, Llama 2, thoughts.
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|think|thinking|start_of_turn|end_of_turn|start_of_image|end_of_image|im_start|im_end"
    r"|turn|channel|tool_call|tool_response)>)"
    r"|<(?=</?SYS>>)"
    # Mistral.
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|ARGS|THINK|IMG|AUDIO)\])"
    r"|\](?=~[!b]\[)",
    re.IGNORECASE,
)
FENCING = ["sha256", _DIGITS, _CONTROL.pattern]
"""How texts are put into a rubric; verdicts that were asked for in another way are other verdicts."""


def without_control_tokens(text: str) -> str:
    """Return a text in which no control token of a common family is spelt whole."""
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)


def fence_of(rubric: str, *texts: str) -> str:
    """Return the mark of the blocks of one request, which is in none of the texts."""
    mark = json.dumps([rubric, *texts])
    while True:
        mark = hashlib.sha256(mark.encode()).hexdigest()[:_DIGITS]
        if not any(mark in text for text in texts):
            return mark
