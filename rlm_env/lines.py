"""Reads files of one record a line, which a crash may have torn at the end. `runs/jsonl.py` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read_lines(
    path: str | Path, parse: Callable[[str], T], error: type[ValueError], *, torn: bool = True
) -> Iterator[T]:
    """Each line of the file through `parse`, in order. Blank lines are skipped.

    A last line without a line break is left out: it was cut off by a crash, or is being written now. Without `torn` it
    is damage, as in a file that was written as a whole. If `parse` raises
    ValueError, KeyError, TypeError or RecursionError, raises `error` with the file's name and the line's number. Raises
    OSError if the file cannot be read.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and not torn:
                raise error(f"{path}, line {number} is damaged: the file ends within it")
            if not line.endswith(b"\n") or not line.strip():
                continue
            try:
                record = parse(line.decode("utf-8"))
            except error as refusal:  # says itself what is wrong
                raise error(f"{path}, line {number}: {refusal}") from refusal
            except (ValueError, KeyError, TypeError, RecursionError) as damage:
                raise error(f"{path}, line {number} is damaged: {damage}") from damage
            yield record


def parse_record(line: str | bytes) -> dict[str, Any]:
    """The JSON object in a line. Raises ValueError where there is none, or one that is nested too deeply to be read, or
    holds numbers that are not finite, which are no JSON."""
    try:
        record = json.loads(line, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError(f"it holds a {type(record).__name__}, not a JSON object")
    return record


def _refuse(constant: str) -> Any:
    raise ValueError(f"it holds {constant}, which is no JSON")
