"""The scaffolds that answer the same tasks, under one interface and one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rlm_env.environment import Environment
from rlm_env.llm.base import LLM
from rlm_env.rollout import Rollout
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.scaffolds.standard import StandardScaffold
from rlm_env.scaffolds.summary import SummaryScaffold
from rlm_env.scaffolds.variants import NoSubScaffold, TipsScaffold
from rlm_env.task import Task


class Scaffold(Protocol):
    """One way of answering a task. `RLMEnv` is one."""

    name: str
    environment: Environment
    config: RLMConfig

    async def rollout(self, task: Task, root: LLM, sub: LLM | None = None, *, id: str | None = None) -> Rollout:
        """An unscored rollout. Raises only EngineUnavailable and CancelledError."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is recorded with a run."""
        ...

    async def aclose(self) -> None:
        """Releases what the scaffold holds (a pool of REPLs)."""
        ...


SCAFFOLDS: dict[str, Callable[[Environment, RLMConfig], Scaffold]] = {
    scaffold.name: scaffold for scaffold in (StandardScaffold, RLMEnv, TipsScaffold, NoSubScaffold, SummaryScaffold)
}


def config_type(name: str) -> type[RLMConfig]:
    """The configuration of a scaffold: `RLMConfig`, or one with further fields."""
    return getattr(SCAFFOLDS[name], "Config", RLMConfig)


def make_scaffold(name: str, environment: Environment, options: Mapping[str, Any] | None = None) -> Scaffold:
    """The scaffold of that name with `options` over the default configuration.

    Raises ValueError on an unknown scaffold, and pydantic's ValidationError (a ValueError) on an unknown option.
    """
    if name not in SCAFFOLDS:
        raise ValueError(f"unknown scaffold {name!r}; known scaffolds: {', '.join(SCAFFOLDS)}")
    return SCAFFOLDS[name](environment, config_type(name)(**(options or {})))
