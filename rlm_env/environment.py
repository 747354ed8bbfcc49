"""What somebody writes to make an environment: its tasks and its score. Nothing about REPLs or engines."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from rlm_env.context import context_text
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task
from rlm_env.tools.schema import Tool


class Environment(ABC):
    """Tasks and how their answers are scored. Everything else has a default.

    Subclasses take their options as keyword arguments of `__init__`; `seed` by convention is one of them.
    `score` may return a plain number. It must be pure: same task and answer, same score, no I/O.
    """

    name: ClassVar[str] = ""
    """How reports call it, for example `oolong-rlm`; the class name when empty."""
    tips: ClassVar[str] = ""
    """Advice for this benchmark that the `rlm-tips` scaffold adds to the prompt."""

    @abstractmethod
    def tasks(self, split: Split) -> Iterable[Task]:
        """Yields the tasks of a split, lazily, the same ones each time. May be endless."""

    @abstractmethod
    def score(self, task: Task, rollout: Rollout) -> Score | float:
        """What the rollout's answer is worth, in [0, 1]."""

    def tools(self, task: Task) -> Sequence[Tool | Callable[..., Any]]:
        """What models may call while they work on this task: typed, documented functions, sync or async (`Tool`).

        They run on the host, never in the REPL. Who gets them is the option `tools_for`: the sub-LLMs, unless set.
        """
        return ()

    async def aclose(self) -> None:
        """Releases what the tools hold (servers, connections); called when a scaffold is closed, possibly more than once.
        The environment can be used again afterwards."""

    async def judge(self, task: Task, rollout: Rollout) -> None:
        """Runs before `score` where a verdict needs I/O (an LLM judge); leaves the verdict in `rollout.info`."""

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        """Policies that do not understand the task (keyword search, listing everything), by name: task -> answer.

        Every report shows what they score on its tasks, beside those that can be made for any environment
        (`evals/baselines.py`). Host side only: they may look at `task.context` and `task.info`, and must not at `gold`.
        """
        return {}

    def perfect_answer(self, task: Task) -> str:
        """An answer that scores 1.0. Host side only: it must never come near a REPL or a prompt."""
        return task.gold if isinstance(task.gold, str) else json.dumps(task.gold, ensure_ascii=False)

    def standard_prompt(self, task: Task) -> str:
        """The single prompt of the standard scaffold: the whole context, then the question."""
        return f"{context_text(task.context)}\n\n{task.question}" if task.context else task.question


def environment_name(environment: Environment) -> str:
    """The environment's name for reports: its own, else its class's."""
    return environment.name or type(environment).__name__
