"""The table `[sync]` of a training config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlm_env.runs.config_table import Table

LARGEST_ADAPTER_RANK = 512
"""The largest rank of an adapter that vLLM serves."""


class SyncConfig(Table):
    """How new weights reach the engine."""

    method: Literal["disk", "lora"] = "disk"
    """`disk`: all weights, through a folder that vLLM reloads; `lora`: the adapter alone."""
    check_tolerance: float | None = Field(default=None, gt=0)
    """Largest mean difference, in nats, between the log-probabilities of engine and trainer; None: by type."""
    drain_seconds: float = Field(default=120.0, gt=0)
    """Seconds that requests in flight get to end before an update; then they are cut off."""
