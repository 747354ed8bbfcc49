"""The table `[sync]` of a training config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlm_env.runs.config_table import Table

LARGEST_ADAPTER_RANK = 512
"""The largest rank of an adapter that vLLM serves."""
RETURN_SECONDS = 300.0
"""The default of `SyncConfig.return_seconds`."""
METHODS_OF_VLLM = ("ipc", "nccl")
"""Values of `SyncConfig.method` that go by vLLM's own weight transfer (`transfer.py`)."""


class SyncConfig(Table):
    """How new weights reach the engine."""

    method: Literal["disk", "lora", "ipc", "nccl"] = "disk"
    """`disk`: all weights, through a folder that vLLM reloads; `lora`: the adapter alone; `ipc`: all weights, out of
    the memory of the GPUs that trainer and engine share; `nccl`: all weights, to an engine on other GPUs. `ipc` and
    `nccl` have not been run on a GPU."""
    address: str = "127.0.0.1"
    """The trainer's address as the engine reaches it, for `nccl`; of an engine on another machine not 127.0.0.1."""
    in_flight: Literal["keep", "drain"] = "keep"
    """Requests in flight at an update. `keep`: they stop where they are and go on under the new weights, which compute
    their prompt and tokens again; each reply records which weights sampled what. `drain`: they end first, on the
    weights that they began with, while the engine empties; `lora` always drains, and so does an engine by URL that was
    started without the run's worker extension."""
    check_tolerance: float | None = Field(default=None, gt=0)
    """Largest mean difference, in nats, between the log-probabilities of engine and trainer; None: by type."""
    return_seconds: float = Field(default=RETURN_SECONDS, ge=0)
    """Seconds that an engine which has died gets to come back where no other has its role; rollouts, updates and the
    clocks of groups wait for it. A local one is started again, one by URL is looked after. Then the run ends."""
    drain_seconds: float = Field(default=120.0, gt=0)
    """Seconds that requests in flight get to end before an update that drains; then they are cut off."""
