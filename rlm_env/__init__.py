"""rlm-env: evaluate and train Recursive Language Models.

A policy answers a question about a context that it never sees: it writes Python into a persistent, sandboxed REPL
that holds the context, hands parts of it to sub-LLMs with `llm_batch`, and the answer is scored.
"""

from typing import TYPE_CHECKING

from rlm_env.lazy_names import lazy_names
from rlm_env.plugins import PLUGINS

if TYPE_CHECKING:
    from rlm_env.asking.ask import ask, ask_sync
    from rlm_env.environment import Environment
    from rlm_env.evals.evaluate import Evaluation, evaluate, evaluate_sync
    from rlm_env.folder import Folder, choose_files
    from rlm_env.registry import load_environment
    from rlm_env.repl import ReplConfig, ReplPool, ReplPools, SubError
    from rlm_env.rollout import Rollout, StopReason
    from rlm_env.scaffolds.config import RLMConfig
    from rlm_env.scaffolds.rlm import RLMEnv
    from rlm_env.score import Score
    from rlm_env.solving import solve, solve_sync
    from rlm_env.task import Task
    from rlm_env.tools import Tool

__version__ = "0.2.0"

__all__ = [
    "Environment",
    "Evaluation",
    "Folder",
    "RLMConfig",
    "RLMEnv",
    "ReplConfig",
    "ReplPool",
    "ReplPools",
    "Rollout",
    "Score",
    "StopReason",
    "SubError",
    "Task",
    "Tool",
    "ask",
    "ask_sync",
    "choose_files",
    "evaluate",
    "evaluate_sync",
    "load_environment",
    "solve",
    "solve_sync",
]
__all__ += PLUGINS  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Environment": "rlm_env.environment",
        "Evaluation": "rlm_env.evals.evaluate",
        "Folder": "rlm_env.folder",
        "RLMConfig": "rlm_env.scaffolds.config",
        "RLMEnv": "rlm_env.scaffolds.rlm",
        "ReplConfig": "rlm_env.repl.config",
        "ReplPool": "rlm_env.repl.host.pool",
        "ReplPools": "rlm_env.repl.host.pools",
        "Rollout": "rlm_env.rollout",
        "Score": "rlm_env.score",
        "StopReason": "rlm_env.rollout",
        "SubError": "rlm_env.repl.config",
        "Task": "rlm_env.task",
        "Tool": "rlm_env.tools.schema",
        "ask": "rlm_env.asking.ask",
        "ask_sync": "rlm_env.asking.ask",
        "evaluate": "rlm_env.evals.evaluate",
        "evaluate_sync": "rlm_env.evals.evaluate",
        "choose_files": "rlm_env.folder",
        "load_environment": "rlm_env.registry",
        "solve": "rlm_env.solving",
        "solve_sync": "rlm_env.solving",
        **PLUGINS,
    },
)
