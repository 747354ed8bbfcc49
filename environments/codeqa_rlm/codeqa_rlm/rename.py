"""Finds the identifiers of a package that can be renamed without breaking it, and makes a text with slots for them.

An identifier can be renamed if the package defines it (as a class, function, method, parameter or module) and nothing
outside can mean the same word: no builtin, no attribute of a builtin type, nothing that modules imported from elsewhere
define, no keyword of a call to elsewhere, no name that is composed at run time from a prefix. It is renamed wherever
it occurs as a word: in code, strings, docstrings and comments; names of modules in code only.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import io
import keyword
import re
import sys
import tokenize
import types
from collections.abc import Iterable, Mapping

WORD = re.compile(r"[^\W\d]\w*")
PREFIX = re.compile(r"([^\W\d]\w*_)(?:$|[%{])")
TYPES = (
    *(value for value in vars(builtins).values() if isinstance(value, type)),
    *(value for value in vars(types).values() if isinstance(value, type)),
    *(value for value in vars(io).values() if isinstance(value, type)),
    re.Pattern,
    re.Match,
)
TEXT = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def words_outside(trees: Iterable[ast.Module], package: str, defined: set[str]) -> set[str]:
    """Words that mean something outside the package. Imports the modules of the standard library that it imports."""
    words = set(keyword.kwlist) | set(keyword.softkwlist) | set(dir(builtins)) | {"self", "cls", "mcs"}
    for kind in TYPES:
        words.update(dir(kind))
    modules: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
                words |= {
                    part for alias in node.names for part in alias.name.split(".") if _outside(alias.name, package)
                }
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and _outside(node.module, package):
                modules.add(node.module)
                words |= {alias.name for alias in node.names} | set(node.module.split("."))
            elif isinstance(node, ast.Call) and _called(node.func) not in defined:
                words |= {argument.arg for argument in node.keywords if argument.arg}
    for name in sorted(modules):
        if _outside(name, package) and name.partition(".")[0] in sys.stdlib_module_names:
            words |= _names_in(name)
    return words


def _outside(module: str, package: str) -> bool:
    return module.partition(".")[0] != package


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _names_in(module: str) -> set[str]:
    """The names that a module of the standard library defines, and the attributes of its classes."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return set()
    names = set(vars(found))
    for value in vars(found).values():
        if isinstance(value, type):
            names.update(dir(value))
    return names


def prefixes(trees: Iterable[ast.Module]) -> tuple[str, ...]:
    """Beginnings of words that strings hold: names may be put together from them (`getattr(x, "visit_" + kind)`)."""
    texts = (
        n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    )
    return tuple(sorted({found[1] for text in texts if (found := PREFIX.match(text))}))


class Slots:
    """A text cut at the words that may be renamed."""

    def __init__(self, text: str, in_code: set[str], in_text: set[str]) -> None:
        """`in_code` are renamed in code, `in_text` in strings and comments."""
        self._pieces: list[str] = []
        """Text, word, text, word, ... text."""
        starts = [0]
        for line in text.split("\n"):
            starts.append(starts[-1] + len(line) + 1)
        at = 0
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            begin = starts[token.start[0] - 1] + token.start[1]
            if begin < at:
                continue
            if token.type == tokenize.NAME and token.string in in_code:
                self._pieces += [text[at:begin], token.string]
                at = begin + len(token.string)
            elif token.type in TEXT:
                end = starts[token.end[0] - 1] + token.end[1]
                for word in WORD.finditer(text, begin, end):
                    if word[0] in in_text:
                        self._pieces += [text[at : word.start()], word[0]]
                        at = word.end()
        self._pieces.append(text[at:])

    def fill(self, names: Mapping[str, str]) -> str:
        """The text with other words in the slots."""
        pieces = self._pieces.copy()
        pieces[1::2] = [names[word] for word in pieces[1::2]]
        return "".join(pieces)
