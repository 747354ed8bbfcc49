"""One held-out evaluation: tasks of the `eval` split, answered with the weights that the engine has meanwhile.

Its rollouts are in held_out.jsonl, each with the versions of the weights that sampled it, so that an evaluation that
was interrupted goes on. When evaluations are made is decided in `evaluations.py`. Evaluations that compare scaffolds
are made with `rlm-env eval` on an exported checkpoint.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

from rlm_env.contexts import CONTEXTS, ContextStore
from rlm_env.evals.stats import clustered_mean
from rlm_env.rollout import GroupMember, Rollout
from rlm_env.runs.folder import stored_line
from rlm_env.runs.jsonl import JsonLog, read_jsonl
from rlm_env.task import Task
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import EnvironmentMix
from rlm_env.train.rl.groups import member_of
from rlm_env.train.rl.rollouts import RolloutEngine, all_of, scored_rollout
from rlm_env.train.run_files import HELD_OUT


class HeldOut:
    """The held-out tasks of a run, and the file of their rollouts, open for appending; a context manager."""

    def __init__(self, config: TrainConfig, mix: EnvironmentMix, engine: RolloutEngine, folder: Path) -> None:
        """Raises ConfigError where a stored rollout is damaged or another process is writing."""
        self._config = config.held_out
        self._seed = config.seed
        self._all_slots = config.groups.concurrency
        self._mix = mix
        self._engine = engine
        self._tasks: dict[str, list[Task]] = {}
        path = folder / HELD_OUT
        self._log = JsonLog(path)
        self._contexts = ContextStore(folder / CONTEXTS)
        self._stored: defaultdict[int, dict[str, Rollout]] = defaultdict(dict)
        """Scored rollouts that an earlier process has stored: step -> key -> rollout."""
        for rollout in read_jsonl(path, lambda line: Rollout.from_json(line, self._contexts)):
            place = member_of(rollout)
            if rollout.score is not None and place.step is not None:
                self._stored[place.step][_key(rollout.task_id, place)] = rollout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    async def run(self, step: int, *, alone: bool = True) -> dict[str, float]:
        """Evaluates after `step` updates. Stored rollouts are not made again. `alone`: nothing else uses the engine, so
        that all slots are free.

        Returns for each environment `eval/<environment>/score`, with `low` and `high` of its 95 % interval, the means
        per rollout of `turns`, `sub_calls` and `root_prompt_tokens_max`, the share of failed rollouts, `error`, and the
        range of the weights that sampled them, `policy_version/min` and `policy_version/max`.
        Raises RunStopped where the disk refuses, and what `engine.restart` raises.
        """
        if not self._tasks:
            self._tasks = await asyncio.to_thread(self._take_tasks)
        done = self._stored.pop(step, {})
        beside = self._config.concurrency or max(1, self._all_slots // 4)
        slots = asyncio.Semaphore(self._all_slots if alone else beside)

        async def one(name: str, task: Task, repeat: int) -> None:
            place = GroupMember(name, member=repeat, step=step)
            key = _key(task.id, place)
            if key in done:
                return
            async with slots:
                rollout = await scored_rollout(f"{step}/{key}", self._mix.held_out(name), task, self._engine, place)
            done[key], line = stored_line(rollout, self._contexts)
            self._log.append_line(line)

        await all_of(
            *(
                one(name, task, repeat)
                for name, tasks in self._tasks.items()
                for task in tasks
                for repeat in range(self._config.repeats)
            )
        )
        return self._metrics(list(done.values()))

    def _take_tasks(self) -> dict[str, list[Task]]:
        return {name: self._mix.held_out(name).tasks("eval").take(self._config.n) for name in self._mix.labels}

    def _metrics(self, rollouts: list[Rollout]) -> dict[str, float]:
        """The line of metrics of an evaluation."""
        metrics: dict[str, float] = {}
        for name in self._mix.labels:
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
            places = [member_of(rollout) for rollout in mine]
            metrics[f"eval/{name}/policy_version/min"] = float(min(place.policy_version for place in places))
            last = max(max(place.policy_version, place.last_policy_version or 0) for place in places)
            metrics[f"eval/{name}/policy_version/max"] = float(last)
        return metrics


def _key(task_id: str, place: GroupMember) -> str:
    """Identifies a rollout within one evaluation."""
    return f"{place.label}/{task_id}/{place.member}"
