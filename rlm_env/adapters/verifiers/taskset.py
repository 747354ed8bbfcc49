"""The tasks of any environment as a taskset of verifiers: what it lists, how a task is judged, scored and validated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Any, Self, cast

import verifiers.v1 as vf
from pydantic import ConfigDict, Field, model_validator

from rlm_env.adapters.verifiers.source import TaskSource, task_source
from rlm_env.evals.grading import perfect_answer
from rlm_env.registry import UnknownOption, check_options
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.scoring import leave_verdict, score_rollout
from rlm_env.task import Split, Tasks
from rlm_env.task import Task as OurTask

OWN_ID = "rlm-env"
"""The plugin id that names no environment."""


class RLMTaskData(vf.TaskData):
    """A reference to a task. `prompt` is its question; the context and the right answer are not part of it."""

    environment: str
    """Its name, as `rlm_env.load_environment` takes it."""
    split: Split = "eval"
    seed: int = 0
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the environment."""
    index: int = Field(default=0, ge=0)
    """Place of the task in the split."""

    @property
    def source(self) -> TaskSource:
        """The environment, and its tasks by index."""
        return task_source(self.environment, self.seed, self.options)

    def task(self) -> OurTask:
        """The task itself. May take as long as making all that come before."""
        return self.source.task(self.split, self.index)


class RLMState(vf.State):
    """What is known of a rollout in the process that made it. It is not stored."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    rollout: Rollout | None = None
    score: Score | None = None


class RLMTask(vf.Task[RLMTaskData, RLMState, vf.TaskConfig]):
    """Scores a trace as everywhere else: by the environment's judge, once after the rollout, and its score."""

    @property
    def key(self) -> str:
        return f"{self.data.environment}/{self.data.split}/{self.data.id}"

    async def finalize(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        """Asks the judge, where the environment has one, and leaves what it said in the trace, for a replay."""
        rollout = state_of(trace).rollout
        if rollout is not None:
            task = await asyncio.to_thread(self.data.task)
            await leave_verdict(self.data.source.environment, task, rollout)
            trace.info["rollout"] = rollout_facts(rollout)

    @vf.reward
    async def task_score(self, trace: vf.Trace) -> float:
        """The environment's score. The value in [0, 1]."""
        return (await self._scored(trace)).value

    @vf.metric
    async def score_metrics(self, trace: vf.Trace) -> dict[str, float]:
        """The scorer's own numbers, as `score_NAME`, and whether there is an answer at all."""
        found = await self._scored(trace)
        return {f"score_{name}": float(value) for name, value in found.metrics.items()} | {
            "answered": float(found.answered)
        }

    async def validate(self, runtime: vf.Runtime) -> bool | None:
        """Whether the right answer scores 1. None where the environment knows none."""
        environment, task = self.data.source.environment, await asyncio.to_thread(self.data.task)
        answer = perfect_answer(environment, task)
        if answer is None:
            return None
        return (await score_rollout(environment, task, Rollout.from_answer(task, answer), ask_judge=False)).value == 1

    async def _scored(self, trace: vf.Trace) -> Score:
        state = state_of(trace)
        if state.score is None:
            task = await asyncio.to_thread(self.data.task)
            rollout = state.rollout or stored_rollout(task, trace.info)
            state.score = await score_rollout(self.data.source.environment, task, rollout, ask_judge=False)
        return state.score


def state_of(trace: vf.Trace) -> RLMState:
    """What is known of the rollout of a trace, here. Nothing yet of one that was read."""
    if not isinstance(trace.state, RLMState):
        cast(Any, trace).state = RLMState()
    return cast(RLMState, trace.state)


def rollout_facts(rollout: Rollout) -> dict[str, Any]:
    """What a trace stores of a rollout beside its messages: enough to score it again."""
    info = {name: value for name, value in rollout.info.items() if name != "sandbox"}
    if "sandbox" in rollout.info:
        info["sandbox"] = rollout.info["sandbox"]["level"]
    return {
        "answer": rollout.answer,
        "scaffold": rollout.scaffold,
        "stop_reason": str(rollout.stop_reason),
        "error": rollout.error,
        "info": info,
    }


def stored_rollout(task: OurTask, info: dict[str, Any]) -> Rollout:
    """The rollout of a trace that was read: its answer and facts, without turns. Of one that left none, no answer."""
    facts = info.get("rollout", {})
    rollout = Rollout.from_answer(task, facts.get("answer", ""))
    rollout.stop_reason = StopReason(facts.get("stop_reason", StopReason.READY))
    rollout.info = dict(facts.get("info", {}))
    return rollout


class RLMTasksetConfig(vf.TasksetConfig):
    """Which tasks."""

    environment: str = ""
    """Name of the environment. Empty: the plugin id."""
    split: Split = "eval"
    """`eval` or `train`."""
    seed: int = 0
    """Seed of generated tasks."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the environment (`rlm-env envs NAME` lists them)."""
    num_tasks: int = Field(default=1000, ge=1)
    """The first so many tasks of the split, which may be endless."""

    @property
    def environment_name(self) -> str:
        """The environment's name. Raises ValueError where nothing names it."""
        name = self.environment or self.id.rsplit("/", 1)[-1].split("@", 1)[0].replace("_", "-").lower()
        if name in ("", OWN_ID):
            raise ValueError('taskset.environment is not set: it names the environment, for example "needle-rlm"')
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Unknown environments and options are refused while the configuration is read, in a dry run too."""
        if self.environment or self.id not in ("", OWN_ID, OWN_ID.replace("-", "_")):
            try:
                check_options(self.environment_name, self.options)
            except UnknownOption as error:
                raise ValueError(f"options: {error}") from None
        return self


class RLMTaskset(vf.Taskset[RLMTask, RLMTasksetConfig]):  # pyright: ignore[reportInvalidTypeArguments]
    """The first `num_tasks` tasks of a split. Never endless: what trains on it may list it.

    Raises ValueError and TypeError for an unknown environment, and for options that it refuses.
    """

    def __init__(self, config: RLMTasksetConfig) -> None:
        super().__init__(config)
        own = {"environment": config.environment_name, **config.model_dump(include={"split", "seed", "options"})}
        self.reference = RLMTaskData.model_validate(own)
        self.environment = self.reference.source.environment

    def load(self) -> Iterator[RLMTask]:
        split = self.config.split
        tasks = Tasks(lambda: self.environment.tasks(split), split)
        for index, task in enumerate(islice(tasks, self.config.num_tasks)):
            own = {"id": task.id, "name": task.id, "prompt": task.question, "index": index}
            yield RLMTask(self.reference.model_copy(update=own), self.config.task)
