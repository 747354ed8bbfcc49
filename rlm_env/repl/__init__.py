"""A persistent Python REPL in a sandboxed process. Knows nothing of LLMs.

    async with ReplPool(ReplConfig()) as pool:
        async with pool.open(context="...", llm_batch=handler) as repl:
            step = await repl.run("len(context)")

In a REPL there are `context`, `answer = {"content": "", "ready": False}`, `llm_batch(prompts)` and whatever its cells
define. The sandbox is described in docs/sandbox.md. `host/` is the trusted side, `child/` runs in
the process of a REPL, `sandbox/` confines that; both sides use the files beside these folders.
"""

from typing import TYPE_CHECKING

from rlm_env.lazy_names import lazy_names

if TYPE_CHECKING:
    from rlm_env.repl.bounds import shorten
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
    "shorten",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Layer": "rlm_env.repl.host.isolation",
        "Repl": "rlm_env.repl.host.repl",
        "ReplConfig": "rlm_env.repl.config",
        "ReplError": "rlm_env.repl.config",
        "ReplPool": "rlm_env.repl.host.pool",
        "ReplPools": "rlm_env.repl.host.pools",
        "SandboxError": "rlm_env.repl.config",
        "SandboxReport": "rlm_env.repl.host.isolation",
        "SharedContext": "rlm_env.repl.host.shared_context",
        "StepResult": "rlm_env.repl.config",
        "SubError": "rlm_env.repl.config",
        "shorten": "rlm_env.repl.bounds",
    },
)
