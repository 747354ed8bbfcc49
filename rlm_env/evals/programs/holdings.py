"""What a value in a rollout's code holds of the context, as flags; and what calls and conditions make of it."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field

WHOLE, PIECE, ALL, HOLDS, FOUND, MEASURED, COMPUTED, REPLY, MANY = (1 << bit for bit in range(9))
"""The whole context; a part of it; its parts, none left out; a container with the whole context as one element; a part
that a condition or a pattern chose (a `PIECE`, too); its length or type; something else that was computed from it; an
answer of a sub-LLM; several elements."""
CONTEXT = WHOLE | PIECE | HOLDS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ASKS = frozenset(("llm_batch", "llm_query", "llm_query_batched"))
"""Functions that ask sub-LLMs."""
HANDS_IN = frozenset(("FINAL", "FINAL_VAR", "SUBMIT"))
PRINTS = frozenset(("print", "display", "pprint"))
GROWS = _words("append extend add update insert setdefault appendleft")
"""Methods that put a value into a container."""
PATTERNS = frozenset(("findall", "finditer", "fullmatch"))
"""Methods that only patterns have."""
MEASURES = _words("len type isinstance id hash dir callable range")
PLACES = _words("find rfind index rindex")
KEEPS = _words(
    "list tuple dict loads deepcopy copy bytes strip lstrip rstrip lower upper casefold title replace expandtabs "
    "encode decode dedent sub literal_eval"
)
TEXTS = _words("str repr join dumps format fill ascii")
"""Calls that make one text of what they are given."""
SPLITS = _words("split splitlines rsplit partition rpartition wrap chunked batched array_split items values keys")
SEARCHES = _words("findall finditer search match fullmatch filter nlargest nsmallest")
COMPUTES = _words(
    "sum max min any all int float bool round abs count startswith endswith isdigit isalpha isnumeric Counter "
    "most_common mean median mode fmean std var argmax argmin unique sqrt ceil floor log"
)
ITERATES = _words("enumerate zip sorted reversed set frozenset iter next map submit chain islice")


@dataclass(slots=True)
class TurnFlow:
    """What the code of one turn does. Each number is a union of the flags above."""

    asked: list[int] = field(default_factory=list)
    """The prompts of each call that asks sub-LLMs."""
    printed: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Each value that is given to `answer["content"]`, or handed in by another name for it."""
    touched: bool = False
    """The context is named."""
    regex: bool = False
    cells: int = 0
    broken: int = 0
    """Cells that are no Python."""


def union_of(values: Iterable[int]) -> int:
    """What several values hold together."""
    return functools.reduce(operator.or_, values, 0)


def part_of(value: int) -> int:
    """A part of a value: of the whole context, a piece."""
    if value & WHOLE:
        value = value & ~WHOLE | PIECE
    return value & ~ALL


def parts_of(value: int) -> int:
    """All parts of a value, one by one."""
    if not value:
        return 0
    return part_of(value) | MANY | (ALL if value & (WHOLE | ALL) else 0)


def element_of(value: int) -> int:
    """One element of a value."""
    return part_of(value) & ~(MANY | HOLDS) | (WHOLE if value & HOLDS else 0)


def held(value: int) -> int:
    """A value as an element of a container."""
    return value & ~WHOLE | HOLDS if value & WHOLE else value


def is_single(value: int) -> bool:
    """True for what is known to have one element: a list that is written so, around a text."""
    return bool(value & (PIECE | HOLDS)) and not value & (MANY | WHOLE)


def as_one_text(value: int) -> int:
    """A value inside of one text: of all parts, that is the whole."""
    return (value | WHOLE if value & (ALL | HOLDS) else value) & ~(MANY | ALL | HOLDS)


def found_in(value: int) -> int:
    """What a search finds in a value."""
    found = part_of(value)
    return found | FOUND if found & CONTEXT else found


def computed_from(value: int) -> int:
    """What is computed from a value and holds no text of it."""
    return value & (REPLY | MEASURED | COMPUTED) | (COMPUTED if value & CONTEXT else 0)


def measure_of(value: int) -> int:
    """What the length or type of a value holds: a result if the value was found or computed, else only a measurement of
    the context."""
    if value & (FOUND | COMPUTED):
        return COMPUTED | value & REPLY
    return value & (REPLY | MEASURED) | (MEASURED if value & CONTEXT else 0)


def depends_on(test: int) -> int:
    """What a value inherits from the condition or loop around it, which itself holds `test`. `FOUND` marks the pieces
    that are kept under it; a test of emptiness or of a length chooses none."""
    return test & REPLY | (COMPUTED if test & (CONTEXT | COMPUTED) else 0) | (FOUND if test & (FOUND | COMPUTED) else 0)


def library_result(name: str, value: int) -> int:
    """The result of a function or method that is not the code's own, by its name; `value`: what it is given."""
    if name in MEASURES:
        return measure_of(value)
    if name in SEARCHES:
        return found_in(value) & ~MANY | (0 if name in ("search", "match", "fullmatch") else MANY)
    if name in SPLITS:
        return parts_of(value)
    if name in COMPUTES or name in PLACES:
        return computed_from(value)
    if name in TEXTS:
        return as_one_text(value)
    if name in ITERATES:
        return value if is_single(value) else parts_of(value)
    return value if name in KEEPS else part_of(value)


def is_blank(node: ast.expr | None) -> bool:
    """True for a literal text without letters and digits: a line break, an empty text."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and not any(map(str.isalnum, node.value))


def leaves(statement: ast.stmt) -> bool:
    """True for `if ...: continue` and the like: what follows runs only where the condition is false."""
    if not isinstance(statement, ast.If) or statement.orelse:
        return False
    return isinstance(statement.body[-1], ast.Continue | ast.Break | ast.Return | ast.Raise)


def called(func: ast.expr) -> tuple[str, ast.expr | None]:
    """The name of what is called, and the value whose method it is."""
    if isinstance(func, ast.Name):
        return func.id, None
    return (func.attr, func.value) if isinstance(func, ast.Attribute) else ("", func)
