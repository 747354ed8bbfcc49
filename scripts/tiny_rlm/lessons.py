"""What tiny-rlm learns about one environment: tasks, a scripted teacher with several strategies, a scripted sub-LLM.

A teacher plays the root LLM. A plan is the list of its replies, one per turn, each a line of prose and one block of
code. The sub-LLM of the lessons answers the teachers' sub-calls as tiny-rlm is to learn to answer them, with tools
where the environment has some. Sessions of both in the real REPL (`sessions.py`) are what tiny-rlm is trained on, as
root and as sub-LLM.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlm_env.llm.base import LLM
from rlm_env.messages import Message
from rlm_env.task import Task

Reply = str | Callable[[str], str]
"""A reply of a teacher, or a function from the last observation to it."""

READY = 'answer["ready"] = True'


@dataclass(frozen=True, slots=True)
class Plan:
    """One session's strategy and replies."""

    strategy: str
    replies: list[Reply]
    fallback: str
    """The reply after the last one, in case its code failed."""


class Lessons(ABC):
    """The lessons of one environment."""

    environment: ClassVar[str]
    """The environment's name."""
    options: ClassVar[Mapping[str, Any]]
    """Its options for the tasks that are learned from; they are those of the split `train`."""
    strategies: ClassVar[Mapping[str, float]]
    """Each strategy's share of the sessions. A name that begins with `sound` is right wherever the sub-LLM is."""
    batching: ClassVar[frozenset[str]] = frozenset()
    """The strategies that call `llm_batch`, which the scaffold `rlm-nosub` lacks."""

    @abstractmethod
    def plan(self, task: Task, strategy: str, draw: random.Random) -> Plan:
        """The teacher's replies on a task. Raises ValueError for a question that no teacher understands."""

    @abstractmethod
    def sub(self, tasks: Sequence[Task]) -> LLM:
        """The scripted sub-LLM that answers the teachers' calls on these tasks. It may know their answers, and raises
        LLMError for a prompt that no teacher writes."""

    def readings(self, tasks: Sequence[Task], draw: random.Random) -> list[list[Message]]:
        """Conversations as a sub-LLM to learn beside those of the sessions; none unless overridden."""
        return []

    def requests(self, tasks: Sequence[Task], draw: random.Random) -> list[Task]:
        """Tasks whose questions are requests to a sub-LLM with the environment's tools, to learn beside the sessions
        (`sessions.record_with_tools`); none unless overridden."""
        return []

    def varied(self, messages: list[Message], draw: random.Random) -> list[Message]:
        """A recorded conversation as it is learned: as it was, unless overridden."""
        return messages

    def draw_plan(self, task: Task, draw: random.Random, *, sub_llms: bool = True) -> Plan:
        """A plan of a strategy that is drawn by its share; without `sub_llms` of one that calls none."""
        names = [name for name in self.strategies if sub_llms or name not in self.batching]
        return self.plan(task, draw.choices(names, [self.strategies[name] for name in names])[0], draw)


def say(prose: str, *code: str) -> str:
    """A reply in the policy's format: prose, then a block of code."""
    return "\n".join([prose, "```repl", *code, "```"])
