"""Which task comes next: environments by weight, the curriculum, difficulty pools.

The order is endless and seeded, and its draws can be repeated after a restart. Rollouts of the tasks are made in
`scheduler.py`.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from rlm_env.runs.errors import ConfigError
from rlm_env.task import Task, Tasks
from rlm_env.train.rl.config import DifficultyPools, TrainEnvironment

MAX_SKIPPED = 1000
"""Most tasks of easy and hard pools that are skipped for one draw; the next one is then taken."""

TasksOf = Callable[[str, int], Tasks]
"""The `train` split of an environment, by label, at a stage of its curriculum (-1: before the first one)."""


@dataclass(frozen=True, slots=True)
class TaskDraw:
    """A drawn task and where it came from."""

    group: int
    """Number of the group of rollouts that it is drawn for: 0, 1, 2, ..."""
    environment: str
    """The environment's label."""
    stage: int
    """Index into the environment's curriculum; -1 before the first stage."""
    index: int
    """Index into the environment's `train` split at that stage; a finite split is repeated."""
    task: Task


class TaskSampler:
    """The order of training tasks. Equal seeds, steps and rewards give equal draws.

    `tasks_of` is called once for every environment and stage that is reached. Not safe for use from two threads at
    once.
    """

    def __init__(
        self,
        environments: Sequence[TrainEnvironment],
        tasks_of: TasksOf,
        seed: int,
        pools: DifficultyPools | None = None,
    ) -> None:
        self._environments = list(environments)
        self._tasks_of = tasks_of
        self._seed = seed
        self._pools = None if pools is None else _Pools(pools)
        self._streams: dict[tuple[str, int], _Stream] = {}
        self._next_group = 0

    def draw(self, step: int) -> TaskDraw:
        """The next task; `step` decides the stage of the curriculum. Raises ConfigError on an empty split."""
        group, self._next_group = self._next_group, self._next_group + 1
        chance = random.Random(f"{self._seed}/{group}")
        (entry,) = chance.choices(self._environments, [entry.weight for entry in self._environments])
        stage = sum(stage.from_step <= step for stage in entry.curriculum) - 1
        stream = self._stream(entry.label, stage)
        index, task = stream.next()
        for _ in range(MAX_SKIPPED):
            if self._pools is None or self._pools.admits(entry.label, task, chance):
                break
            index, task = stream.next()
        return TaskDraw(group, entry.label, stage, index, task)

    def repeat(self, group: int, environment: str, stage: int, index: int) -> TaskDraw:
        """Repeats a recorded draw. To be called in the order of the groups. Raises ValueError out of order."""
        self._next_group = max(self._next_group, group + 1)
        return TaskDraw(group, environment, stage, index, self._stream(environment, stage).at(index))

    def observe(self, draw: TaskDraw, reward: float) -> None:
        """Takes in the mean reward of a group, which decides how often its pool is drawn from."""
        if self._pools is not None:
            self._pools.observe(draw.environment, draw.task, reward)

    def _stream(self, environment: str, stage: int) -> _Stream:
        key = (environment, stage)
        if key not in self._streams:
            self._streams[key] = _Stream(environment, self._tasks_of(environment, stage))
        return self._streams[key]


class _Stream:
    """One split as an endless sequence that only moves forward."""

    def __init__(self, name: str, tasks: Tasks) -> None:
        self._name = name
        self._tasks = tasks
        self._iterator: Iterator[Task] = iter(tasks)
        self._position = 0

    def next(self) -> tuple[int, Task]:
        task = next(self._iterator, None)
        if task is None:
            self._iterator = iter(self._tasks)
            task = next(self._iterator, None)
        if task is None:
            raise ConfigError(f"environment {self._name} has no tasks in its split 'train'")
        self._position += 1
        return self._position - 1, task

    def at(self, index: int) -> Task:
        if index < self._position:
            raise ValueError(f"draws must be repeated in order: {index} of {self._name} comes after {self._position}")
        while True:
            position, task = self.next()
            if position == index:
                return task


class _Pools:
    """The recent rewards of each pool, and whether it is too easy or too hard now."""

    def __init__(self, config: DifficultyPools) -> None:
        self._config = config
        self._rewards: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=config.window))

    def admits(self, environment: str, task: Task, chance: random.Random) -> bool:
        """Whether a task may be drawn now: of easy and hard pools only some are."""
        rewards = self._rewards.get(self._key(environment, task))
        if not rewards or len(rewards) < self._config.window:
            return True
        mean = fmean(rewards)
        if mean >= self._config.easy:
            return chance.random() < self._config.keep_easy
        if mean <= self._config.hard:
            return chance.random() < self._config.keep_hard
        return True

    def observe(self, environment: str, task: Task, reward: float) -> None:
        """Takes in the reward of a group."""
        self._rewards[self._key(environment, task)].append(reward)

    def _key(self, environment: str, task: Task) -> tuple[str, str]:
        """The pool of a task."""
        by = self._config.by
        if by is None:
            return environment, task.id
        check_pools(self._config, environment, task)
        return environment, str(task.info[by])


def check_pools(pools: DifficultyPools | None, environment: str, task: Task) -> None:
    """Raises ConfigError where a task cannot be put into a pool."""
    if pools is not None and pools.by is not None and pools.by not in task.info:
        raise ConfigError(
            f"groups.pools.by: tasks of {environment} have no info {pools.by!r}; they have {', '.join(task.info)}"
        )
