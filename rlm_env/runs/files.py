"""Files of a run that are replaced as a whole, and disk errors as the end of a run.

Files that only grow are in `jsonl.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from rlm_env.runs.errors import RunStopped


def replace_file(path: Path, text: str) -> None:
    """Replaces the file at `path`; after a crash it holds either the old text or the new one. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turns an OSError into RunStopped, whose message names `path` and what was being done."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise RunStopped("disk full" if full else "disk error", f"{path}: {reason} ({doing})", 1) from error
