"""Plain inference: a question about a context, no environment and no score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlm_env.environment import Environment
from rlm_env.events import OnEvent
from rlm_env.llm.base import LLM
from rlm_env.rollout import Rollout
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Context, Split, Task
from rlm_env.tools import Tool


class _Question(Environment):
    """An environment of one task, which has no right answer."""

    name = "solve"

    def __init__(self, task: Task, tools: Sequence[Tool | Callable[..., Any]]) -> None:
        self._task = task
        self._tools = tools

    def tasks(self, split: Split) -> list[Task]:
        return [self._task]

    def score(self, task: Task, rollout: Rollout) -> float:
        raise ValueError("a question without an environment has no score")

    def tools(self, task: Task) -> Sequence[Tool | Callable[..., Any]]:
        return self._tools


async def solve(
    question: str,
    context: Context,
    root: LLM,
    sub: LLM | None = None,
    *,
    tools: Sequence[Tool | Callable[..., Any]] = (),
    on_event: OnEvent | None = None,
    **config: Any,
) -> Rollout:
    """Answers one question about a context of any length with an RLM; `rollout.answer` is the answer.

    `tools`: typed, documented functions that the sub-LLMs may call. `on_event` is told what happens. `config`: fields
    of `RLMConfig`.
    Raises EngineUnavailable when the engine cannot be reached; `rollout.stop_reason` and `rollout.error` say what else
    went wrong.
    """
    task = Task(question, context, id="question")
    async with RLMEnv(_Question(task, tools), RLMConfig(**config)) as env:
        return await env.rollout(task, root, sub, on_event=on_event)
