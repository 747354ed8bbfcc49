"""Reading what a run has stored, while it may still be going on."""

from __future__ import annotations

import json
from pathlib import Path


def lines(path: Path) -> list[dict]:
    """The whole records of a JSONL file that may still be written to; none where there is no file."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
