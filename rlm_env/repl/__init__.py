"""A persistent Python REPL in a process of its own, behind walls. Knows nothing of LLMs.

    async with ReplPool(ReplConfig()) as pool:
        async with pool.open(context="...", llm_batch=handler) as repl:
            step = await repl.run("len(context)")

In a REPL there are `context`, `answer = {"content": "", "ready": False}`, `llm_batch(prompts)` and whatever its cells
define. See docs/sandbox.md for the walls.
"""

from rlm_env.repl.config import ReplConfig, ReplError, SandboxError, StepResult, SubError
from rlm_env.repl.host.isolation import Layer, SandboxReport
from rlm_env.repl.host.pool import ReplPool
from rlm_env.repl.host.pools import ReplPools
from rlm_env.repl.host.repl import Repl
from rlm_env.repl.host.shared_context import SharedContext

__all__ = [
    "Layer",
    "Repl",
    "ReplConfig",
    "ReplError",
    "ReplPool",
    "ReplPools",
    "SandboxError",
    "SandboxReport",
    "SharedContext",
    "StepResult",
    "SubError",
]
