"""What a run has spent, in US dollars: on rollouts, and on what is besides them.

What an engine does not tell the tokens of has an unknown cost, which is not 0: then so is the sum, and no limit can
hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rlm_env.runs.errors import RunStopped
from rlm_env.runs.prices import CostLimit

ROLLOUTS = "rollouts"


@dataclass(slots=True)
class Spending:
    """The dollars of one run; `limit` may be shared by several."""

    limit: CostLimit
    sides: dict[str, float] = field(default_factory=dict)
    """Besides the rollouts, by what they were spent on."""
    _rollouts: float = 0.0
    _unknown: set[str] = field(default_factory=set)
    """Of what something was asked whose cost is not known."""

    def add_rollout(self, cost: float | None) -> None:
        """Counts a rollout."""
        if cost is None:
            self._unknown.add(ROLLOUTS)
            return
        self._rollouts += cost
        self.limit.spent += cost

    def add_side(self, purpose: str, cost: float | None) -> None:
        """Counts what was not spent on a rollout. Raises RunStopped where a limit of cost cannot hold because what was
        asked does not tell its tokens."""
        if cost is not None:
            self.sides[purpose] = self.sides.get(purpose, 0.0) + cost
            self.limit.spent += cost
            return
        self._unknown.add(purpose)
        if self.limit.limit is not None:
            text = f"max_cost cannot hold: replies ({purpose}) do not tell how many tokens they took; leave it out"
            raise RunStopped("tokens unknown", text, 2)

    def forget_rollouts(self) -> None:
        """Makes the rollouts' dollars those of none, before they are counted again."""
        self.limit.spent -= self._rollouts
        self._rollouts = 0.0
        self._unknown.discard(ROLLOUTS)

    @property
    def total(self) -> float | None:
        """All dollars; None where some are unknown."""
        return None if self._unknown else self._rollouts + math.fsum(self.sides.values())
