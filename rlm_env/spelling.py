"""What was probably meant by a name that is not known: "did you mean ...?" in every message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHORTEST = 3
"""Characters from which the beginning of a name is taken for a hint at it."""


def near_matches(word: str, known: Iterable[str], *, listing: bool = True) -> str:
    """ "; did you mean ...?" where something begins so or is similar, otherwise (with `listing`) all that is known."""
    known = sorted(known)
    begun = [name for name in known if len(word) >= SHORTEST and name.startswith(word)]
    if matches := begun[:2] or difflib.get_close_matches(word, known, n=2, cutoff=0.6):
        return "; did you mean " + " or ".join(f"'{match}'" for match in matches) + "?"
    return f" (known: {', '.join(known)})" if known and listing else ""
