"""What all REPLs of a pool share: the room for their prompts, the watchdog over their threads and memory, and the
measure of the host's own lateness; and where their temporary directories are."""

from __future__ import annotations

from rlm_env.repl.config import ReplConfig
from rlm_env.repl.host.lateness import Lateness
from rlm_env.repl.host.prompt_budget import PromptBudget
from rlm_env.repl.host.scratch import ScratchBase
from rlm_env.repl.host.scratch_use import ScratchWatch
from rlm_env.repl.host.watchdog import Watchdog, machine_memory
from rlm_env.repl.sandbox.enter import MAX_THREADS


class PoolLimits:
    """The limits of a pool of REPLs. Close it with the pool."""

    def __init__(self, config: ReplConfig, scratch: ScratchBase | None = None) -> None:
        """`scratch`: None where REPLs have no temporary directory."""
        self.prompts = PromptBudget(config.pool_batch_mb * 2**20)
        memory = config.pool_memory_mb * 2**20 if config.pool_memory_mb is not None else machine_memory() * 3 // 4
        self.scratch = scratch
        self.scratch_watch = None
        if scratch is not None and scratch.path is not None:
            self.scratch_watch = ScratchWatch(scratch.path, config.tmp_mb * 2**20, config.file_mb * 2**20)
        self.watchdog = Watchdog(memory, MAX_THREADS, self.scratch_watch)
        self.lateness = Lateness()

    def close(self) -> None:
        self.watchdog.close()
        self.lateness.close()
        if self.scratch is not None:
            self.scratch.close()
