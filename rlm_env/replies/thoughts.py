"""The thoughts of a reply, which an engine has left in its text: neither code nor answer.

Tags that stand in code, in a call's arguments, in quotes or in a sentence about them are text like any other.
"""

from __future__ import annotations

import re
from typing import Protocol

from rlm_env.replies.calls import TextCall
from rlm_env.replies.forms import Code, read_forms
from rlm_env.replies.source import parses

_NAMES = r"(?:\w+:|\w+_|ant)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|inner_monologue|analysis)"
_TAG = re.compile(
    rf"<(?P<close>/?)(?P<name>{_NAMES})>"
    r"|(?P<open2><\|begin_of_(?:thought|thinking)\|>|<\|START_THINKING\|>|<\|(?:think|thinking)_?(?:start|begin)?\|>"
    r"|<\|channel>(?:thought)?|<unused94>(?:thought)?|\[THINK\]|◁think▷)"
    r"|(?P<close2><\|end_of_(?:thought|thinking)\|>|<\|END_THINKING\|>|<\|/(?:think|thinking)\|>"
    r"|<\|(?:think|thinking)_end\|>|<channel\|>|<unused95>|\[/THINK\]|◁/think▷)",
    re.IGNORECASE,
)
_LEAKED = re.compile(r"\A\s*analysis(?=[A-Z\s])(?P<thought>.*?)assistant(?:final|(?=commentary))", re.DOTALL)
"""Harmony's channels where the engine has dropped the control tokens between them."""
_SPELLED_OUT = re.compile(
    r"\A\s*Here(?:'s| is) my thought process:.*?Here(?:'s| is) my response:|<details type=\"reasoning\".*?</details>",
    re.DOTALL,
)
"""Granite's thoughts, and those that a web interface has folded."""
_CHANNEL = re.compile(
    r"(?:<\|start\|>[\w. =]*)?<\|channel\|>(?P<header>[^<]*(?:<\|constrain\|>[^<]*)?)<\|message\|>(?P<body>.*?)"
    r"(?P<end><\|(?:end|call|return)\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)
_SOLUTION = re.compile(
    r"\A\s*<\|(?:begin_of_solution|START_RESPONSE|START_TEXT)\|>|<\|(?:end_of_solution|END_RESPONSE|END_TEXT)\|>\s*\Z"
)
_QUOTES = ("'", '"', "`")


class Spoken(Protocol):
    """A reply of an engine, or its record."""

    text: str
    reasoning: str | None


def visible_text(reply: Spoken) -> str:
    """A reply's text without thoughts. Where the engine has parted them, the text is taken as it is, but for a copy of
    them at its start."""
    if reply.reasoning and not _TAG.match(reply.text.lstrip()):
        return reply.text
    return strip_thinking(reply.text)


def strip_thinking(text: str) -> str:
    """The text without thoughts: closed blocks, one that was cut off, and all that stands before a closing tag whose
    opening is in the prompt. Text without any comes back unchanged."""
    if "<|channel|>" in text:
        text = _without_analysis(text)
    text = _LEAKED.sub("", text, count=1)
    if "my thought process:" in text or "<details type=" in text:
        text = _SPELLED_OUT.sub("", text)
    if not _TAG.search(text):
        return text
    kept = _without_tagged(text)
    return text if kept is None else _SOLUTION.sub("", _SOLUTION.sub("", kept.lstrip()))


def _without_tagged(text: str) -> str | None:
    """None where no tag is one of thoughts."""
    literal = _literal_spans(text)
    pieces: list[str] = []
    kept_to, opened, seen = 0, -1, False
    for tag in _TAG.finditer(text):
        if _is_mention(text, tag) or any(start < tag.start() and tag.end() < end for start, end in literal):
            continue
        if tag["close"] or tag["close2"]:
            if opened >= 0:
                pieces.append(text[kept_to:opened])
            else:
                pieces.clear()
            kept_to, opened, seen = tag.end(), -1, True
        elif opened < 0:
            opened = tag.start()
    if opened >= 0 and not text[text.rfind("\n", 0, opened) + 1 : opened].strip():
        pieces.append(text[kept_to:opened])  # it was cut off while it was thinking
        return "".join(pieces)
    return "".join([*pieces, text[kept_to:]]) if seen else None


def _is_mention(text: str, tag: re.Match[str]) -> bool:
    """True for a tag in quotes, and for one that is a word of a sentence."""
    before, behind = text[max(tag.start() - 3, 0) : tag.start()], text[tag.end() : tag.end() + 3]
    opens = before[-1:] in _QUOTES and before != "```"
    closes = behind[:1] in _QUOTES and behind != "```"
    if opens or closes:
        return True
    in_sentence = len(before) >= 2 and before[-1] in " (" and (before[-2].isalnum() or before[-2] in ",(")
    return in_sentence and (behind[:1] in (",", ".", ")", ";") or bool(re.match(r" [a-z]", behind)))


def _literal_spans(text: str) -> list[tuple[int, int]]:
    """Where the text is code or a call: a tag in there is part of a string."""
    return [
        (form.start, form.end)
        for form in read_forms(text)
        if (form.closed and form.bare and parses(form.code) if isinstance(form, Code) else _is_read(form))
    ]


def _is_read(call: TextCall) -> bool:
    return not isinstance(call.arguments, str)


def _without_analysis(text: str) -> str:
    """What a reply in harmony's form says in other channels than `analysis`; calls are kept as they are written."""
    kept: list[str] = []
    at = 0
    for part in _CHANNEL.finditer(text):
        kept.append(text[at : part.start()])
        at = part.end()
        if "to=" in part[0][: part.start("body") - part.start()]:
            kept.append(part[0])
        elif not part["header"].strip().startswith("analysis"):
            kept.append(part["body"])
    return "\n".join(piece for piece in [*kept, text[at:]] if piece.strip()) if at else text
