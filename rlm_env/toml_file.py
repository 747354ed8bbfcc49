"""Reads TOML files: configs of runs, price tables, the pyproject.toml of environment packages.

Writing them is in `runs/folder.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_toml(path: Path, error: type[ValueError] = ValueError) -> dict[str, Any]:
    """The values of a TOML file. Raises `error`, which names the file and what is wrong with it, and OSError."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise error(f"{path} is not valid TOML: {problem}") from problem


def table_at(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The table `[a.b.c]` for the keys a, b, c; {} where there is none or something else."""
    found: Any = values
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}
