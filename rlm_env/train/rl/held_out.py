"""The periodic evaluation during training: the environments' `eval` split, answered with the weights of the moment.

Covered: rollouts on the engine that trains, scores with intervals, going on after a kill. Not covered: full
evaluations with several scaffolds, which are `rlm-env eval` on an exported checkpoint.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from rlm_env.evals.stats import clustered_mean
from rlm_env.rollout import GroupMember, Rollout, read_rollouts
from rlm_env.task import Task
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import EnvironmentMix
from rlm_env.train.rl.groups import member_of
from rlm_env.train.rl.rollouts import Engine, all_of, scored_rollout

HELD_OUT = "held_out.jsonl"


class HeldOut:
    """The held-out tasks of a run. Its rollouts are stored in the run's folder, under the step they belong to."""

    def __init__(self, config: TrainConfig, mix: EnvironmentMix, engine: Engine, folder: Path) -> None:
        self._config = config.held_out
        self._seed = config.seed
        self._concurrency = config.groups.concurrency
        self._mix = mix
        self._engine = engine
        self._path = folder / HELD_OUT
        self._tasks: dict[str, list[Task]] = {}
        self._stored: dict[int, dict[str, Rollout]] = {}
        """What a run that was stopped has left on disk: step -> key -> rollout."""

    async def run(self, step: int) -> dict[str, float]:
        """Scores of each environment after `step` updates: `eval/<environment>/score`, with `low` and `high` of its
        95 % interval, and means per rollout of `turns`, `sub_calls`, `root_prompt_tokens_max`, and the `error` share.
        Rollouts that are on disk already are not made again."""
        if not self._tasks:
            await asyncio.to_thread(self._load)
        done = self._stored.pop(step, {})
        slots = asyncio.Semaphore(self._concurrency)

        async def one(name: str, task: Task, repeat: int) -> None:
            place = GroupMember(name, member=repeat, step=step)
            key = _key(task.id, place)
            if key in done:
                return
            async with slots:
                rollout = await scored_rollout(f"{step}/{key}", self._mix.held_out(name), task, self._engine, place)
            self._append(rollout)
            done[key] = rollout

        await all_of(
            *(
                one(name, task, repeat)
                for name, tasks in self._tasks.items()
                for task in tasks
                for repeat in range(self._config.repeats)
            )
        )
        return self._metrics(list(done.values()))

    def _load(self) -> None:
        self._tasks = {name: self._mix.held_out(name).tasks("eval").take(self._config.n) for name in self._mix.names}
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        os.truncate(self._path, data.rfind(b"\n") + 1)
        for rollout in read_rollouts(self._path):
            if rollout.score is not None:
                place = member_of(rollout)
                self._stored.setdefault(place.step or 0, {})[_key(rollout.task_id, place)] = rollout

    def _append(self, rollout: Rollout) -> None:
        with open(self._path, "a", encoding="ascii") as out:
            out.write(rollout.to_json() + "\n")

    def _metrics(self, rollouts: list[Rollout]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for name in self._mix.names:
            mine = [rollout for rollout in rollouts if member_of(rollout).label == name]
            scores: dict[str, list[float]] = defaultdict(list)
            for rollout in mine:
                if rollout.score is not None:
                    scores[rollout.task_id].append(rollout.score.value)
            estimate = clustered_mean(scores, self._seed)
            if estimate is not None:
                parts = {"score": estimate.mean, "low": estimate.low, "high": estimate.high}
                metrics |= {f"eval/{name}/{part}": value for part, value in parts.items()}
            for fact in ("turns", "sub_calls", "root_prompt_tokens_max"):
                metrics[f"eval/{name}/{fact}"] = fmean(rollout.metrics.get(fact, 0.0) for rollout in mine)
            metrics[f"eval/{name}/error"] = fmean(rollout.score is None for rollout in mine)
        return metrics


def _key(task_id: str, place: GroupMember) -> str:
    """Tells the rollouts of one evaluation apart."""
    return f"{place.label}/{task_id}/{place.member}"
