"""The verdict of an environment on a rollout: a reward, and named numbers beside it.

Not covered: how a score is made (`scoring/`), and how it is stored, which is with its rollout (`rollout.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class MetricError(ValueError):
    """A metric of a score that is no finite number. The message names it."""


@dataclass(slots=True)
class Score:
    """An environment's verdict on a rollout. The shape is that of inspect_ai's `Score`."""

    value: float
    """The reward, in [0, 1]."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Named finite numbers that are not the reward. Whatever is a number, such as a bool or a numpy scalar, becomes a
    float."""
    explanation: str | None = None
    answered: bool = True
    """False where the output holds no answer at all, which reports count apart from a wrong one."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:  # also refuses nan
            raise ValueError(f"Score.value must lie in [0, 1], got {self.value!r}; put other numbers into metrics")
        if not isinstance(self.metrics, Mapping):
            raise MetricError(f"Score.metrics must be a dict of numbers, got {self.metrics!r:.80}")
        self.metrics = {name: _finite(name, value) for name, value in self.metrics.items()}


def _finite(name: Any, value: Any) -> float:
    """The metric as a float. Raises MetricError where it is no finite number, or its name no string."""
    if not isinstance(name, str):
        raise MetricError(f"Score.metrics: the name {name!r:.80} of a metric must be a string")
    try:
        number = math.nan if isinstance(value, str | bytes | bytearray) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise MetricError(
            f"Score.metrics[{name!r}] must be a finite number, got {value!r:.80}; put texts into explanation"
        )
    return number
