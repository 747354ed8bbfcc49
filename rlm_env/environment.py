"""What you write to make an environment: its tasks and its score. Nothing about REPLs or engines.

    class WordCount(rlm_env.Environment):
        def tasks(self, split):
            for n in range(1, 100):
                yield rlm_env.Task(question="How many words?", context="word " * n, gold=str(n))

        def score(self, task, rollout):
            return float(rollout.answer.strip() == task.gold)

This much is a whole environment: `rlm_env.RLMEnv(WordCount())` rolls it out, and named as an entry point
(`registry.py`) it is found by name in evaluations and training.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from rlm_env.context import context_text
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_env.tools import Tool


@dataclass(frozen=True)
class ScoreLimits:
    """What one call of `Environment.score` may take before it is ended, and the rollout has no score."""

    cpu_seconds: float = 60.0
    """Processor time."""
    wall_seconds: float = 120.0
    memory_bytes: int = 4 * 2**30
    """Beside what the environment itself takes."""


class Environment(ABC):
    """Tasks, and how their answers are scored. Only `tasks` and `score` must be written.

    Options are keyword arguments of the subclass's `__init__`, each with a default. One named `seed` gets the seed of
    a run.
    """

    name: ClassVar[str] = ""
    """The name in reports, for example `oolong-rlm`; the class name when empty."""
    tips: ClassVar[str] = ""
    """Advice for this benchmark, which the scaffold `rlm-tips` adds to the system prompt."""
    makes_any_task: bool = False
    """Whether `task` makes the task at an index alone, and not all that come before it."""
    score_limits: ScoreLimits = ScoreLimits()
    score_in_process: bool = False
    """False: evaluations and training call `score` in another process, so that a slow one delays nothing and can be
    stopped. True: in a thread, which sees this very object, but can neither be stopped nor limited in memory."""

    @abstractmethod
    def tasks(self, split: Split) -> Iterable[Task]:
        """Yields the tasks of a split: lazily, the same ones each time, possibly without end.

        A task without an id gets one from its position (`eval-0`, `eval-1`, ...).
        """

    @abstractmethod
    def score(self, task: Task, rollout: Rollout) -> Score | float:
        """The reward in [0, 1] for `rollout.answer`; a `Score` can add metrics and an explanation.

        Must be pure: the same task and answer get the same score, without I/O. What needs I/O belongs into `judge`.
        It usually runs in another process (see `score_in_process`): what it changes in its arguments or in the
        environment is lost.
        """

    def task(self, split: Split, index: int) -> Task:
        """The task at a position of the split, counted from 0. Override it, and set `makes_any_task`, where tasks can
        be made out of order: this one makes all that come before. Raises IndexError behind the end."""
        if index < 0:
            raise IndexError(f"task {index} of {split!r}: tasks are counted from 0")
        found = next(islice(Tasks(lambda: self.tasks(split), split), index, None), None)
        if found is None:
            raise IndexError(f"task {index} of {split!r}: there are not that many")
        return found

    def tools(self, task: Task) -> Sequence[Tool | Callable[..., Any]]:
        """Functions that models may call while they work on this task: typed, documented, sync or async (see `Tool`).

        They run on the host, never in the REPL. The option `tools_for` says who may call them: sub-LLMs by default.
        """
        return ()

    async def aclose(self) -> None:
        """Releases what the tools hold (servers, connections). Called when a scaffold is closed, so possibly more than
        once; the environment can be used again afterwards."""

    async def judge(self, task: Task, rollout: Rollout) -> None:
        """Awaited before `score`, for verdicts that need I/O, such as an LLM judge's. Leave the verdict in
        `rollout.info`, where `score` finds it."""

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        """Answers made without understanding the task, for comparison in every report: name -> (task -> answer).

        For example the result of a keyword search, or a list of everything. The functions may use `task.context` and
        `task.info`, never `task.gold`. Baselines that any environment has (a random answer, the most frequent one)
        come from `evals/baselines.py`.
        """
        return {}

    def perfect_answer(self, task: Task) -> str:
        """An answer that scores 1.0: `gold`, as JSON unless it is a str. Override it where answers look different.

        Used by tests and baselines on the host; models never see it.
        """
        return task.gold if isinstance(task.gold, str) else json.dumps(task.gold, ensure_ascii=False)

    def standard_prompt(self, task: Task) -> str:
        """The single prompt of the scaffold `standard`: the whole context, then the question."""
        return f"{context_text(task.context)}\n\n{task.question}" if task.context else task.question


def environment_name(environment: Environment) -> str:
    """The environment's name for reports: its own, else its class's."""
    return environment.name or type(environment).__name__
