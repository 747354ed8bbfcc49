"""The mean of what may be nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable


def mean_or_zero(values: Iterable[float]) -> float:
    """The mean; 0.0 without values."""
    found = list(values)
    return math.fsum(found) / len(found) if found else 0.0
