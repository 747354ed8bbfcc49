"""What was probably meant by a name that is not known: "did you mean ...?" in every message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near_matches(word: str, known: Iterable[str], *, listing: bool = True) -> str:
    """ "; did you mean ...?" where something similar is known, otherwise (with `listing`) all that is known."""
    known = sorted(known)
    if matches := difflib.get_close_matches(word, known, n=2, cutoff=0.6):
        return "; did you mean " + " or ".join(f"'{match}'" for match in matches) + "?"
    return f" (known: {', '.join(known)})" if known and listing else ""
