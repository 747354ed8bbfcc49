"""Files of rows as a hub has them, for the tests of published data sets. Nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes rows in the form that the file's ending names: parquet, json (one list), jsonl."""
    if path.suffix == ".parquet":
        import datasets

        datasets.Dataset.from_list([dict(row) for row in rows]).to_parquet(str(path))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_changed(path: Path, row: Mapping[str, Any], change: Callable[[dict[str, Any]], object]) -> Path:
    """Writes one row with a change made to it."""
    changed = dict(row)
    change(changed)
    return write_rows(path, [changed])
