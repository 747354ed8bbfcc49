"""The table `[supervised]`: saved rollouts that are trained beside the reward. Reading them is in `supervised.py`."""

from __future__ import annotations

from pydantic import Field

from rlm_env.runs.config_table import Table
from rlm_env.train.sft.config import KeepConfig


class SupervisedConfig(Table):
    """A supervised share: each step also trains the likelihood of some saved rollouts."""

    rollouts: tuple[str, ...] = Field(min_length=1)
    """Files of rollouts, or run folders with a rollouts.jsonl."""
    weight: float = Field(default=0.1, gt=0)
    """Weight of the mean negative log-likelihood of a supervised token, beside the loss of the policy."""
    per_step: int = Field(default=16, ge=1)
    """Samples in each step. They go round, in another order each time."""
    keep: KeepConfig = KeepConfig()
    """Which of the rollouts are trained, as in `rlm-env sft`."""
    train_root: bool = True
    """Train the root's tokens; if false, only those of sub-calls."""
