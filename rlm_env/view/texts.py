"""Texts of a stored record as pieces that a page can show: what is quoted of the context stays a reference beside it.

A piece is text, or {"start", "end", "text"}: a quote of the context, of which `text` may be the beginning only. Code is
a list of [class, text], as a highlighter reads it. Nothing here is HTML; the page makes text nodes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlm_env.contexts import PARTS, ContextError
from rlm_env.view.stored_context import StoredContext

Piece = str | dict[str, Any]
TEXT_CHARS = 60_000
"""A longer text is cut; the raw record has all of it."""
QUOTE_CHARS = 4_000
"""Characters of a quote that are sent at once; the rest is loaded from the context on demand."""
CODE_CHARS = 40_000
"""Longer code is not highlighted."""


class Texts:
    """Reads the texts of one stored record."""

    def __init__(
        self, record: dict[str, Any], context: StoredContext | None, *, quote_chars: int = QUOTE_CHARS
    ) -> None:
        """`context`: what the record refers to; None where it refers to none, or to one that is gone."""
        self._repeated: list[str] = record.get("texts", [])
        self._context = context
        self._quote_chars = quote_chars

    def pieces(self, value: Any) -> list[Piece]:
        """A prompt or observation: text, parts, or a list of content parts as multimodal chats have them."""
        if value is None:
            return []
        if isinstance(value, str):
            return [cut(value)]
        if isinstance(value, dict) and PARTS in value:
            return [self._piece(part) for part in value[PARTS]]
        if isinstance(value, list):
            return [
                piece for one in value for piece in self.pieces(one.get("text", one) if isinstance(one, dict) else one)
            ]
        return [cut(str(value))]

    def whole(self, value: Any) -> str:
        """All of a text, what it quotes of the context included."""
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and PARTS in value:
            parts = (self._quote(*part) if isinstance(part, list) else part for part in value[PARTS])
            return "".join(part if isinstance(part, str) else self._repeated[part] for part in parts)
        if isinstance(value, list):
            return "\n".join(self.whole(one.get("text", "")) if isinstance(one, dict) else str(one) for one in value)
        return "" if value is None else str(value)

    def start(self, value: Any, chars: int) -> str:
        """The beginning of a text in one line, as a list shows it."""
        found = ""
        for text in self._plain(value, chars):
            found += text
            if len(found) >= chars:
                break
        return " ".join(found[:chars].split())

    def _plain(self, value: Any, chars: int) -> Iterator[str]:
        if isinstance(value, dict) and PARTS in value:
            for part in value[PARTS]:
                if isinstance(part, list):
                    yield self._quote(part[0], min(part[1], part[0] + chars))
                else:
                    yield part if isinstance(part, str) else self._repeated[part]
        elif value is not None:
            yield from (piece if isinstance(piece, str) else piece["text"] for piece in self.pieces(value))

    def _piece(self, part: Any) -> Piece:
        if isinstance(part, list):
            start, end = part
            return {"start": start, "end": end, "text": self._quote(start, min(end, start + self._quote_chars))}
        return cut(part if isinstance(part, str) else self._repeated[part])

    def _quote(self, start: int, end: int) -> str:
        if self._context is None:
            return ""
        try:
            return self._context.text(start, end)
        except ContextError:
            return ""


def cut(text: str) -> str:
    """The text, or its beginning with the number of characters that are left out."""
    if len(text) <= TEXT_CHARS:
        return text
    return f"{text[:TEXT_CHARS]}\n... {len(text) - TEXT_CHARS:,} more characters are in the raw record"


def highlighted(code: str) -> list[list[str]]:
    """Python code as [class, text] pairs, which joined are the code. Classes are one letter, empty for plain text."""
    if len(code) > CODE_CHARS:
        return [["", cut(code)]]
    from pygments.lexers.python import PythonLexer

    pairs: list[list[str]] = []
    for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(code):
        name = _token_class(str(kind))
        if pairs and (pairs[-1][0] == name or not text.strip()):
            pairs[-1][1] += text
        else:
            pairs.append([name, text])
    return pairs


def _token_class(kind: str) -> str:
    return next((letter for start, letter in _CLASSES if kind.startswith(start)), "")


_CLASSES = (
    ("Token.Comment", "c"),
    ("Token.Keyword", "k"),
    ("Token.Operator.Word", "k"),
    ("Token.Literal.String.Interpol", ""),
    ("Token.Literal.String", "s"),
    ("Token.Literal.Number", "n"),
    ("Token.Name.Builtin", "b"),
    ("Token.Name.Function", "f"),
    ("Token.Name.Class", "f"),
    ("Token.Name.Decorator", "d"),
    ("Token.Error", ""),
)
