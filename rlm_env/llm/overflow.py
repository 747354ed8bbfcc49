"""Reads from an endpoint's error whether a prompt was too long, and how long it was.

Two refusals look alike and are something else: a limit of tokens per minute, and a proxy's limit of bytes in a request.
"""

from __future__ import annotations

import re

from rlm_env.llm.base import ContextOverflow

CODES = re.compile(
    r"context_length_exceeded|context_window_exceeded|exceed_context_size_error|model_max_prompt_tokens_exceeded"
    r"|tokens_limit_reached|request_too_large|max_context_length_exceeded|context(?:window|length)exceeded",
    re.IGNORECASE,
)
"""Codes of an error. Gateways put them into the message too."""
RATE = re.compile(
    r"\b(?:tokens?|requests?|input tokens?) per (?:min|minute|second|hour|day)\b|\b[TR]P[MDS]\b|rate[ _-]?limit|quota"
    r"|\b(?:hourly|daily|weekly|monthly)\b|\b(?:for|of) (?:today|this (?:hour|day|week|month))\b"
    r"|please wait|(?:try again|retry) (?:later|in\b|after)|throttl",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    # the window, by name
    r"max_model_len|max_seq_len|context (?:window|size|length|limit)|context overflow"
    r"|exceeds? (?:the )?(?:model'?s? )?(?:maximum )?context"
    # the prompt, and that it is too long
    r"|(?:prompt|inputs?|messages?|request|conversation|query)\b"
    r"(?:(?!\b(?:queue|timed? ?-?out|took|tak(?:es|ing)|wait(?:s|ed|ing)?)\b)[^.]){0,60}"
    r"\btoo (?:long|large)\b(?! for upload)"
    r"|(?:prompt|inputs?|sequence)\b[^.]{0,40}\d{3}(?: tokens?)?(?: long)?(?:,? (?:which )?is)? "
    r"(?:over|above|larger than|greater than|longer than) [^.\d]{0,40}\d{3}"
    r"|too many (?:input |prompt )?tokens|maximum prompt length|prompt exceeds|range of input length"
    r"|reduce the length of (?:the |your )?(?:messages?|prompt|input)|exceeded model token limit|token limit exceeded"
    r"|(?:input|prompt|token)s?[` ]*(?:token )?(?:length|count|tokens)?\b[^.]{0,80}?"
    r"(?:exceeds?|exceeding|exceeded|longer than|larger than|greater than|more than|beyond|cannot exceed"
    r"|must have (?:less|fewer) than|must be (?:<=?|less|fewer|at most|shorter)|only supports? up to)"
    r"[^.]{0,60}(?:token|length|limit|max|context|window|size|\d{3})"
    r"|exceeds? the (?:model'?s? )?(?:maximum|max|limit)[^.]{0,40}(?:tokens|context|length)"
    r"|must be less than max_seq_len|\.content\W*: string too long|max(?:imum)? tokens of \d+ exceeded"
    r"|max_num_tokens|\btext\b[^.]{0,20}\btoo long for (?:the|this) model|tokens number is too big"
    r"|(?:prompt|input|request|messages)\b[^.]{0,40}\btokens,? but the (?:limit|maximum)"
    # the prompt in characters
    r"|too many total text bytes|expected maxLength|max(?:imum)? input characters"
    r"|超长|(?:超过|超出)[^。]{0,20}(?:上下文|长度|限制)|上下文长度",
    re.IGNORECASE,
)
OUTPUT_ONLY = re.compile(
    r"max_(?:completion_|output_|new_)?tokens\S*(?::| is| must| value| cannot| exceeds| too| should| \(|=)"
    r"|maximum tokens you requested|max_?output_?tokens|(?:output|completion) token limit|max tokens must be"
    r"|maximum output",
    re.IGNORECASE,
)
"""About the limit of output tokens, unless the prompt is spoken of too."""
NO_ROOM = re.compile(r"max_(?:completion_)?tokens(?:\b[^.]{0,40}\b(?:got|was|is))?\W+-\d", re.IGNORECASE)
"""The limit of output tokens that the server itself has computed is negative: the prompt has filled the window."""
PROMPT_TOO = re.compile(r"\b(?:prompt|inputs?|messages|context)\b", re.IGNORECASE)
OTHER_FIELD = re.compile(r"[.'\"](?!content\b|text\b|input\b|prompt\b)\w+['\"`]*: string too long", re.IGNORECASE)
"""A name or an id in the request is too long."""
BODY = re.compile(r"(?:request entity|payload|content|body) too large|\b413 request\b", re.IGNORECASE)
WINDOW = tuple(
    re.compile(rf"(?:{words})\s*[(\[`]?(\d[\d,]*)", re.IGNORECASE)
    for words in (
        r"exceed context limit: [\d,]+ \+ [\d,]+ >",
        r"tokens? >",
        r"maximum (?:context|prompt) length (?:is|of|:)|maximum context length:",
        r"context (?:window|length|size|limit) (?:is|of only|of)",
        r"must have less than|must be <=|model token limit:|input length should be \[\d+,|limit (?:is|of)"
        r"|supports up to|max size:|context size \(|n_ctx:|max_num_tokens|max_seq_len|maximum model length of"
        r"|but the limit is",
        r"(?:exceeds?|cannot exceed|exceeding|exceeded|greater than|larger than|longer than|too large)"
        r"(?: (?:the|its|a|for|maximum|max|allowed|total|tokens?|input|length|limit|number|of|context|available"
        r"|model'?s?|configured|size|max_seq_len|max_num_tokens|window|prompt))*",
        r"maximum(?: is| of)?",
        r"\d (?:is )?(?:over|above)(?: the)?(?: limit of)?",
    )
)
PROMPT = tuple(
    re.compile(words, re.IGNORECASE)
    for words in (
        r"(?<!at least )(?<!for )\b(\d[\d,]*) (?:input tokens|tokens? (?:in|from) (?:the |your )?(?:input )?"
        r"(?:messages|prompt|input)|in (?:the|your) (?:messages|prompt)|of text input|`inputs` tokens)",
        r"exceed context limit: (\d[\d,]*)",
        r"n_keep: (\d+)",
        r"(?:resulted in|contains|has|is too long:|prompt \(|input \(|request \() ?"
        r"(\d[\d,]*) (?:input |prompt )?tokens",
        r"\b(\d[\d,]*) tokens long|sequence length (?:of |is )?(\d[\d,]*)",
        r"(?:given|current length is|received|\(requested|token count of|token count is|token count|prompt length"
        r"|input length|too long|prompt_tokens|\(length|requested tokens|prompt tokens)[: (]+(\d[\d,]*)",
        r"requested (?:about )?(\d[\d,]*) tokens(?! \()",
    )
)


def overflow_from_message(message: str, *, code: str = "") -> ContextOverflow | None:
    """ContextOverflow with the numbers in the message, or None if the message is about something else.

    `code`: the code and type of the error. "At least 900 input tokens" and "upper bound for 900
    input tokens" hold no usable number: vLLM stops counting there.
    """
    known = CODES.search(code) or CODES.search(message) or NO_ROOM.search(message)
    if RATE.search(message) or RATE.search(code):
        return None
    if not known:
        if OTHER_FIELD.search(message) or (OUTPUT_ONLY.search(message) and not PROMPT_TOO.search(message)):
            return None
        if not TOO_LONG.search(message) or (BODY.search(message) and "token" not in message.lower()):
            return None
    return ContextOverflow(_number(PROMPT, message), _number(WINDOW, message))


def _number(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    for pattern in patterns:
        if found := pattern.search(text):
            return int(found[found.lastindex or 1].replace(",", ""))
    return None
