"""Rows on disk: one JSONL file for each step, so that a run can be trained again, or debugged, without an engine.

Covered: writing a step's rows whole or not at all, reading them back unchanged. Not covered: rollouts, which hold
more (`rlm_env.rollout`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rlm_env.evals.errors import ConfigError
from rlm_env.train.rows import Row, RowKind


def write_rows(folder: Path, step: int, rows: Sequence[Row]) -> Path:
    """Writes the rows that step `step` trains; returns the file, `step-000001.jsonl` for the first step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06}.jsonl"
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="ascii") as out:
        out.writelines(json.dumps(asdict(row), separators=(",", ":"), allow_nan=False) + "\n" for row in rows)
    os.replace(temporary, path)
    return path


def row_files(folder: Path) -> list[Path]:
    """The files of a folder, in the order of their steps. Raises ConfigError where there are none or one is missing."""
    files = sorted(folder.glob("step-*.jsonl"))
    if not files:
        raise ConfigError(f"--from-rows: there is no step-000001.jsonl in {folder}; make such files with --dump-rows")
    for step, path in enumerate(files, 1):
        if path.stem != f"step-{step:06}":
            raise ConfigError(f"--from-rows: {folder} has {path.name} where step-{step:06}.jsonl was expected")
    return files


def read_rows(path: Path) -> list[Row]:
    """The rows of a file. Raises ConfigError that names the line where it is not as `write_rows` makes it."""
    known = {field.name for field in fields(Row)}
    rows = []
    with open(path, encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                if values.keys() != known:
                    raise ValueError(f"fields {sorted(values.keys() ^ known)} are missing or unknown")
                row = Row(**{**values, "kind": RowKind(values["kind"])})
                if not len(row.token_ids) == len(row.mask) == len(row.behavior_logprobs):
                    raise ValueError("token_ids, mask and behavior_logprobs differ in length")
            except (ValueError, TypeError, AttributeError) as error:
                raise ConfigError(f"{path}, line {number}: not a row: {error}") from error
            rows.append(row)
    return rows
