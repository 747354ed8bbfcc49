"""System prompts as text files, and what is put into them.

A prompt file may hold `<tool>...</tool>` and `<fence>...</fence>` sections, of which one is kept, likewise
`<sub>...</sub>` and `<alone>...</alone>` (a REPL with and without sub-LLMs), and `$name` fields of the configuration.
Tips stand in `<tips>...</tips>` so that training can strip them again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from rlm_env.messages import Message

_TIPS = re.compile(r"\n*<tips>\n.*?\n</tips>\n*", re.DOTALL)


def load_prompt(name: str) -> str:
    """The text of a shipped prompt (`rlm`, `tiny`) or of a file given by its path.

    Raises ValueError naming the shipped ones where there is neither.
    """
    shipped = {f.name.removesuffix(".txt"): f for f in resources.files(__name__).iterdir() if f.name.endswith(".txt")}
    if name in shipped:
        return shipped[name].read_text("utf-8")
    if Path(name).is_file():
        return Path(name).read_text("utf-8")
    raise ValueError(f"prompt {name!r} is neither a file nor one of: {', '.join(sorted(shipped))}")


def render_prompt(
    text: str,
    *,
    use_tool: bool,
    sub_llms: bool = True,
    note: str = "",
    tips: str = "",
    fields: dict[str, object] | None = None,
) -> str:
    """A system prompt for a model that runs code by the tool (`use_tool`) or by fenced blocks, with or without
    `sub_llms`; `note` is a paragraph at its end, before the tips.

    Raises ValueError on a `$name` that is no field, and on tips that hold the tags that they stand in.
    """
    if "<tips>" in tips or "</tips>" in tips:
        raise ValueError("tips must not hold <tips> or </tips>: they stand between these tags")
    sections = [("tool", use_tool), ("fence", not use_tool), ("sub", sub_llms), ("alone", not sub_llms)]
    for name, kept in sections:
        pattern = rf"</?{name}>\n?" if kept else rf"<{name}>.*?</{name}>\n?"
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    try:
        text = Template(text).substitute(fields or {}).strip()
    except KeyError as error:
        raise ValueError(f"the prompt asks for ${error.args[0]}; known fields: {', '.join(fields or {})}") from None
    text = f"{text}\n\n{note.strip()}" if note.strip() else text
    return f"{text}\n\n<tips>\n{tips.strip()}\n</tips>" if tips.strip() else text


def strip_tips(text: str) -> str:
    """The prompt without its tips: for training a model to do without them."""
    return _TIPS.sub("", text)


def strip_tips_from_messages(messages: Sequence[Message]) -> list[Message]:
    """A conversation without the tips of its system prompt, equal in everything else; the given one is untouched.

    To train a model to do without tips, render this as the prompt of the first turn and keep the sampled ids that
    follow. The behavior logprobs stay those of the prompt with tips, so an importance ratio is off from 1 at step 0.
    """
    return [
        {**message, "content": strip_tips(message["content"])} if message["role"] == "system" else message
        for message in messages
    ]


def prompt_hash(text: str) -> str:
    """First 16 hex digits of the SHA-256, as recorded with every result."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
