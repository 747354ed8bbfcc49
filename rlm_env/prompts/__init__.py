"""System prompts as text files, and filling them in.

A prompt file may have `<tool>...</tool>` and `<fence>...</fence>` sections, of which one is kept, likewise
`<sub>...</sub>` and `<alone>...</alone>` (a REPL with and without sub-LLMs), and `$name` fields of the configuration.
An environment's tips are put between `<tips>` and `</tips>`, so that training can strip them again (`strip_tips`).
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from string import Template

_TIPS = re.compile(r"\n*<tips>\n.*?\n</tips>\n*", re.DOTALL)


def load_prompt(name: str) -> str:
    """The text of a shipped prompt (`rlm`, `tiny`), or of a file given by its path.

    Raises ValueError, which lists the shipped prompts, where there is neither.
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
    `sub_llms`. `note` is a paragraph after the prompt, before the tips.

    Raises ValueError on a `$name` that is no field, and on tips that contain `<tips>` or `</tips>` themselves.
    """
    if "<tips>" in tips or "</tips>" in tips:
        raise ValueError("tips must not contain <tips> or </tips>: they are put between these tags")
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
    """A system prompt without its tips, to train a model that does without them.

    Keep the sampled ids: their behavior logprobs are those under the prompt with tips, so that importance ratios
    differ from 1 even before the first update.
    """
    return _TIPS.sub("", text)


def prompt_hash(text: str) -> str:
    """First 16 hex digits of the SHA-256, as recorded with every result."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
