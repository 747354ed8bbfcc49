"""rlm-env: evaluate and train Recursive Language Models.

A policy answers a question about a context that it never sees: it writes Python into a persistent, sandboxed REPL
that holds the context, hands parts of it to sub-LLMs with `llm_batch`, and the answer is scored.
"""

from importlib.metadata import version

from rlm_env.environment import Environment
from rlm_env.registry import load_environment
from rlm_env.repl import ReplConfig, ReplPool, ReplPools, SubError
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.solve import solve
from rlm_env.task import Task
from rlm_env.tools import Tool

__version__ = version("rlm-env")

__all__ = [
    "Environment",
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
    "load_environment",
    "solve",
]
