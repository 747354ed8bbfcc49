"""Python source as text: is it whole, and without the indentation of the list that it was written in."""

from __future__ import annotations

import ast
import functools
import re
import textwrap
import warnings
from collections.abc import Iterable
from itertools import islice

MAX_PARSED_CHARS = 200_000
"""Longer texts count as broken, which keeps the search for a block's end cheap."""

_MAX_TAGS_TRIED = 16


@functools.lru_cache(8)  # one reply's code is looked at several times
def tree_of(code: str) -> ast.Module | None:
    """The syntax tree of a cell's code; None where it is broken, or too long to be looked at."""
    if len(code) > MAX_PARSED_CHARS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            tree = compile(dedent(code), "<cell>", "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    return tree if isinstance(tree, ast.Module) else None


def parses(code: str) -> bool:
    """True for code without syntax errors. Top-level `await` is none."""
    return tree_of(code) is not None


def closing_tag(
    text: str, start: int, tags: Iterable[re.Match[str]], at_an_end: re.Pattern[str]
) -> re.Match[str] | None:
    """Which of the tags behind `start` ends the code that begins there; None where there are none.

    A tag may stand in a string of the code: it is the first one up to which the code is whole, of those first that
    `at_an_end` matches (with what stands around them). Of broken code it is simply the first.
    """
    tried = list(islice(tags, _MAX_TAGS_TRIED))
    if not tried or not any(mark in text[start : tried[0].start()] for mark in "'\"#"):
        return tried[0] if tried else None
    tried.sort(key=lambda tag: not at_an_end.match(text, tag.start()))
    return next((tag for tag in tried if parses(text[start : tag.start()])), tried[0])


def dedent(code: str) -> str:
    """The code without the indentation of its first line. Without any it is left alone: `textwrap.dedent` also empties
    lines of blanks, inside strings too, and a text that is copied verbatim would lose them."""
    first = next((line for line in code.split("\n") if line.strip()), "")
    return textwrap.dedent(code) if first.startswith((" ", "\t")) else code
