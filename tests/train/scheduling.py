"""What the tests of the scheduler share: a scaffold that scores by script, an engine that only has a version."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

from rlm_env.environment import Environment
from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import Rollout, Score, StopReason, SubCall, Turn
from rlm_env.runs.folder import RunFolder
from rlm_env.task import Task, Tasks
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.journal import Journal
from rlm_env.train.rl.scheduler import Scheduler


class Scripted(Environment):
    """Its score is what the scaffold has put into the answer."""

    def tasks(self, split):
        index = 0
        while True:
            yield Task(f"question {index}", id=f"task-{index}")
            index += 1

    def score(self, task, rollout):
        return Score(float(rollout.answer))


class Scaffold:
    """`reply(task, member)` -> a score, an exception to raise, or an error's text; `delay` says after how long, `calls`
    after how many sub-calls."""

    def __init__(
        self, reply=lambda task, member: float(member % 2), delay=lambda task, member: 0.0, calls=lambda member: 0
    ):
        self.environment = Scripted()
        self.reply, self.delay, self.calls = reply, delay, calls
        self.begun: list[str] = []

    def open_record(self, task, id):
        return Rollout(id=id, task_id=task.id)

    async def rollout(self, task, llm, sub=None, *, id, context):
        self.begun.append(id)
        member = int(id.rpartition("/")[2])
        await asyncio.sleep(self.delay(task, member))
        reply = self.reply(task, member)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, str):
            return Rollout(id=id, task_id=task.id, stop_reason=StopReason.ERROR, error=reply)
        turn = Turn(prompt_ids=[1, 2], completion_ids=[3], logprobs=[-0.5])
        calls = [SubCall(index, 0, 0, []) for index in range(self.calls(member))]
        return Rollout(id=id, task_id=task.id, answer=str(reply), turns=[turn], sub_calls=calls)

    async def judge(self, task, rollout):
        pass


class EnvironmentMix:
    """One environment, `scripted`, answered by one scaffold."""

    def __init__(self, scaffold):
        self._scaffold = scaffold

    def scaffold(self, name, stage):
        return self._scaffold

    def tasks(self, name, stage):
        return Tasks(lambda: self._scaffold.environment.tasks("train"), "train")

    def any_task(self, name, stage):
        return None


class Engine:
    """Dead while `dead` is above 0; each restart takes one off."""

    llm = sub = None

    def __init__(self):
        self.version = 0
        self.restarts = 0

    @property
    def newest_version(self):
        return self.version

    async def restart(self):
        self.restarts += 1


def config(steps=4, advantage=None, **groups) -> TrainConfig:
    groups = {"size": 4, "per_step": 2, "max_off_policy_steps": 1, "concurrency": 64, **groups}
    values = {"model": "m", "out": "o", "environments": [{"name": "scripted"}], "steps": steps, "groups": groups}
    values |= {"advantage": advantage} if advantage else {}
    return TrainConfig.model_validate(values)


@contextlib.asynccontextmanager
async def scheduling(
    folder: Path, config: TrainConfig, scaffold: Scaffold, trained: int = 0, engine: Engine | None = None
):
    """A scheduler over `folder`, as a run would open it, and its engine."""
    engine = engine or Engine()
    engine.version = trained
    with (
        RunFolder(folder, resume=(folder / "config.toml").exists()) as run,
        Journal(folder) as journal,
    ):
        run.write_config({})
        async with Scheduler(config, EnvironmentMix(scaffold), engine, run, journal, trained) as scheduler:
            yield scheduler, engine


async def train_one(scheduler: Scheduler, engine: Engine, seconds: float = 0.0):
    """One step of a trainer that takes `seconds`."""
    batch = await scheduler.next_batch()
    await asyncio.sleep(seconds)
    scheduler.trained()
    engine.version += 1
    scheduler.published(engine.version)
    return batch


def shaky(seed: int, longest: float = 0.01):
    """Delays that differ from rollout to rollout."""
    return lambda task, member: random.Random(f"{seed}{task.id}{member}").random() * longest


DEAD = EngineUnavailable("no engine")
