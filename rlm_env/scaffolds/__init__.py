"""The scaffolds that answer the same tasks, under one interface and one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rlm_env.arms.standard import StandardArm
from rlm_env.arms.summary import SummaryArm
from rlm_env.arms.variants import NoSubArm, TipsArm
from rlm_env.env import RLMConfig, RLMEnv
from rlm_env.environment import Environment
from rlm_env.llm.base import LLM
from rlm_env.rollout import Rollout
from rlm_env.task import Task


class Arm(Protocol):
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
        """Releases what the arm holds (a pool of REPLs)."""
        ...


ARMS: dict[str, Callable[[Environment, RLMConfig], Arm]] = {
    arm.name: arm for arm in (StandardArm, RLMEnv, TipsArm, NoSubArm, SummaryArm)
}


def config_type(name: str) -> type[RLMConfig]:
    """The configuration of an arm: `RLMConfig`, or one with further fields."""
    return getattr(ARMS[name], "Config", RLMConfig)


def make_arm(name: str, environment: Environment, options: Mapping[str, Any] | None = None) -> Arm:
    """The arm of that name with `options` over the default configuration.

    Raises ValueError on an unknown arm, and pydantic's ValidationError (a ValueError) on an unknown option.
    """
    if name not in ARMS:
        raise ValueError(f"unknown arm {name!r}; known arms: {', '.join(ARMS)}")
    return ARMS[name](environment, config_type(name)(**(options or {})))
