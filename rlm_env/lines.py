"""Reads files of one record a line, which a crash may have torn at the end. `runs/jsonl.py` writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def read_lines(path: str | Path, parse: Callable[[str], T], error: type[ValueError]) -> Iterator[T]:
    """Each line of the file through `parse`, in order. Blank lines are skipped.

    A last line without a line break is left out: it was cut off by a crash, or is being written now. If `parse` raises
    ValueError, KeyError or TypeError, raises `error` with the file's name and the line's number. Raises OSError if the
    file cannot be read.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") or not line.strip():
                continue
            try:
                record = parse(line.decode("utf-8"))
            except error as refusal:  # says itself what is wrong
                raise error(f"{path}, line {number}: {refusal}") from refusal
            except (ValueError, KeyError, TypeError) as damage:
                raise error(f"{path}, line {number} is damaged: {damage}") from damage
            yield record
