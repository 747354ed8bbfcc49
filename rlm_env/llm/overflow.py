"""Reads from an endpoint's error message whether a prompt was too long, and how long it was."""

from __future__ import annotations

import re

from rlm_env.llm.base import ContextOverflow

TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|context (?:window|size|length)|max_model_len"
    r"|(?:prompt|input|request)[^.]{0,60} too (?:long|large)|too many (?:input )?tokens"
    r"|exceeds? the (?:model'?s? )?(?:maximum|max|limit)[^.]{0,40}(?:tokens|context|length)",
    re.IGNORECASE,
)
WINDOW = re.compile(
    r"(?:maximum context length (?:is|of)|context (?:window|length|size) (?:is|of)|maximum (?:is|of)?|> )"
    r"\s*\(?(\d[\d,]*)",
    re.IGNORECASE,
)
PROMPT = re.compile(
    r"(?<!at least )(?<!for )\b(\d[\d,]*) (?:input tokens|tokens? (?:in|from) (?:the|your) (?:messages|prompt|input))"
    r"|(?:resulted in|contains|has|is too long:) (\d[\d,]*) (?:input |prompt )?tokens",
    re.IGNORECASE,
)


def overflow_from_message(message: str) -> ContextOverflow | None:
    """ContextOverflow with the numbers in the message, or None if the message is about something else.

    "At least 900 input tokens" and "upper bound for 900 input tokens" hold no usable number: vLLM stops counting there.
    """
    if not TOO_LONG.search(message):
        return None
    return ContextOverflow(_number(PROMPT, message), _number(WINDOW, message))


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    digits = next((group for group in found.groups() if group), None) if found else None
    return int(digits.replace(",", "")) if digits else None
