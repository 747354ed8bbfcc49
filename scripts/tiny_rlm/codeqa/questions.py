"""Parses a question of `codeqa-rlm` in its profile `tiny`, and restates it in the words of a program.

Three families occur there: `callers`, `overrides`, `default`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

CodeFamily = Literal["callers", "overrides", "default"]

_OPTION = re.compile(r"^\([A-D]\) (.*)$", re.M)
_FAMILIES: dict[CodeFamily, re.Pattern[str]] = {
    "callers": re.compile(r"Which of these functions calls `(?P<target>[\w.]+)` itself, not through another one"),
    "overrides": re.compile(
        r"Which of these classes inherits from `(?P<target>[\w.]+)`, directly or not, and overrides its method "
        r"`(?P<member>\w+)`"
    ),
    "default": re.compile(r"What is the default value of the parameter `(?P<member>\w+)` of `(?P<target>[\w.]+)`\?"),
}


@dataclass(frozen=True, slots=True)
class CodeQuestion:
    """The parts of a question that a program needs."""

    family: CodeFamily
    target: str
    """`module.name` of the function or class that is asked about."""
    member: str
    """The method or parameter that is asked about; empty in `callers`."""
    options: tuple[str, ...]
    """The four options in the order of their letters."""

    @property
    def module(self) -> str:
        """The module of the target."""
        return self.target.split(".")[0]

    @property
    def name(self) -> str:
        """The target without its module."""
        return self.target.split(".")[1]

    @property
    def listed(self) -> str:
        """The options as they stand in the question, one a line behind their letters: a small model copies best what it
        need not rewrite."""
        return "\n".join(f"({letter}) {option}" for letter, option in zip("ABCD", self.options, strict=True))

    @property
    def asked(self) -> str:
        """The question in a few words, without the options."""
        match self.family:
            case "callers":
                return f"who calls {self.target}"
            case "overrides":
                return f"who overrides {self.member} of {self.target}"
            case "default":
                return f"default {self.member} of {self.target}"

    @property
    def chosen_from(self) -> str:
        """The question in a few words, with the options."""
        return f"{self.asked}\n{self.listed}"


def read_code_question(text: str) -> CodeQuestion:
    """Raises ValueError for a question that is not understood."""
    options = tuple(_OPTION.findall(text))
    for family, pattern in _FAMILIES.items():
        if (found := pattern.search(text)) and len(options) == 4:
            parts = found.groupdict()
            return CodeQuestion(family, parts["target"], parts.get("member", ""), options)
    raise ValueError(f"no teacher understands this question: {text}")
