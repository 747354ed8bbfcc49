"""Measures the length of a text in tokens: characters / 4, or the count of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

CHARACTERS_PER_TOKEN = 4


class Measure:
    """Counts units of which `per_token` make a token.

    Without a tokenizer a unit is a character. With one, a unit is a token and a text is as long as its lines
    together; tokenizers whose tokens do not reach over line ends count the whole text the same.
    """

    def __init__(self, count: Callable[[str], int] = len, per_token: int = CHARACTERS_PER_TOKEN) -> None:
        self.count = count
        self.per_token = per_token

    def tokens(self, units: int) -> int:
        """Tokens that `units` amount to, rounded up."""
        return -(-units // self.per_token)


def make_measure(tokenizer: Callable[[str], Any] | str | Path | None) -> Measure:
    """A measure from None (characters / 4), a callable from text to token ids (or to their number), or the path
    of a tokenizer: a `tokenizer.json`, or a folder that has one. Raises ValueError if there is no such file."""
    if tokenizer is None:
        return Measure()
    if isinstance(tokenizer, str | Path):
        path = Path(tokenizer)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"tokenizer: there is no {path}; give a tokenizer.json, its folder, or a callable")
        from tokenizers import Tokenizer

        loaded = Tokenizer.from_file(str(path))
        return Measure(lambda text: len(loaded.encode(text, add_special_tokens=False).ids), 1)
    if not callable(tokenizer):
        raise TypeError(f"tokenizer: expected None, a callable or a path, got {type(tokenizer).__name__}")

    def count(text: str) -> int:
        tokens = tokenizer(text)
        return tokens if isinstance(tokens, int) else len(tokens)

    return Measure(count, 1)
