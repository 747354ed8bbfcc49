"""Rows of a published data set, pinned by commit, and refused if they do not have the expected columns.

So nobody evaluates on other data without noticing. Rows are streamed unless local files are named. Needs `datasets`
(`pip install 'rlm-env[data]'`). Mapping rows to tasks is left to the environments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Published:
    """A published data set and the expected columns of its rows."""

    repository: str
    config: str | None
    revision: str
    """The tested commit."""
    columns: dict[str, type | tuple[type, ...]]
    others: bool = False
    """If true, rows may have other columns besides these."""


def read_rows(
    published: Published, split: str, revision: str | None = None, files: str | Path | None = None
) -> Iterator[Mapping[str, Any]]:
    """The rows of a split, in order, each checked.

    `revision` is another commit (40 hex digits; None: the tested one); `files` is a folder or file with the rows
    (parquet, json or jsonl) to be read instead of the hub. Raises ImportError without `datasets`, ValueError if
    revision, columns or values are not as expected, and FileNotFoundError if `files` holds no such split.
    """
    for row in _rows(published, split, revision, files):
        _check(row, published)
        yield row


def _rows(
    published: Published, split: str, revision: str | None, files: str | Path | None
) -> Iterator[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ImportError("the published sets need the package datasets: pip install 'rlm-env[data]'") from None
    if files is not None:
        if revision not in (None, published.revision):
            raise ValueError("revision: local files have none; give either files or another revision")
        form, found = _find(Path(files), split)
        yield from datasets.load_dataset(form, data_files={split: found}, split=split, streaming=True)
        return
    revision = revision or published.revision
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"revision: {revision!r} is not a commit of 40 hex digits; branches and tags move. The tested one is "
            f"{published.revision}"
        )
    yield from datasets.load_dataset(
        published.repository, published.config, split=split, revision=revision, streaming=True
    )


def _find(place: Path, split: str) -> tuple[str, list[str]]:
    """The builder and the files of a split: one file, or those in a folder whose names begin with the split's."""
    for form, endings in (("parquet", (".parquet",)), ("json", (".jsonl", ".json", ".jsonl.gz"))):
        if place.is_file() and place.name.endswith(endings):
            return form, [str(place)]
        found = sorted(str(f) for f in place.rglob(f"{split}*") if f.is_file() and f.name.endswith(endings))
        if found:
            return form, found
    raise FileNotFoundError(f"files: {place} is no parquet or json file and holds none named {split}*")


def _check(row: Mapping[str, Any], published: Published) -> None:
    missing = published.columns.keys() - row.keys()
    unknown = set() if published.others else row.keys() - published.columns.keys()
    if missing or unknown:
        raise ValueError(
            f"{published.repository}: columns differ from the pinned revision {published.revision}: missing "
            f"{sorted(missing) or 'none'}, unknown {sorted(unknown) or 'none'}; use that revision"
        )
    for name, kind in published.columns.items():
        if not isinstance(row[name], kind) or (name in ("question", "answer") and not row[name].strip()):
            raise ValueError(
                f"{published.repository}: row {str(row.get('id', row.get('question')))[:80]!r} has {name} = "
                f"{str(row[name])[:80]!r}, expected a non-empty {getattr(kind, '__name__', kind)}; use the pinned "
                f"revision {published.revision}"
            )
