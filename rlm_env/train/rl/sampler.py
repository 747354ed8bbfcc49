"""Which task comes next: environments by weight, the curriculum, difficulty pools.

The order is endless and seeded, and its draws can be repeated after a restart. Rollouts of the tasks are made in
`scheduler.py`.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from rlm_env.runs.errors import ConfigError
from rlm_env.task import Task, Tasks
from rlm_env.train.rl.config import DifficultyPools, TrainEnvironment

MAX_SKIPPED = 1000
"""Most tasks of easy and hard pools that are skipped for one draw; the next one is then taken."""

TasksOf = Callable[[str, int], Tasks]
"""The `train` split of an environment, by label, at a stage of its curriculum (-1: before the first one)."""
AnyTask = Callable[[int], Task]
"""Makes the task at an index of a split alone. Raises IndexError behind the end."""


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Where the task of a group comes from, and which pool its reward counts for."""

    environment: str
    stage: int
    index: int
    pool: str | None = None
    """None: there are no pools."""


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
    pool: str | None = None
    """The pool of tasks that its reward counts for; None where there are no pools."""


class TaskSampler:
    """The order of training tasks. Equal seeds, steps and rewards give equal draws.

    `tasks_of` is called once for every environment and stage that is reached. `any_task_of` gives what makes a task by
    its index alone, where an environment has it, so that a resumed run does not make all that come before. Not safe for
    use from two threads at once.
    """

    def __init__(
        self,
        environments: Sequence[TrainEnvironment],
        tasks_of: TasksOf,
        seed: int,
        pools: DifficultyPools | None = None,
        any_task_of: Callable[[str, int], AnyTask | None] | None = None,
    ) -> None:
        self._environments = list(environments)
        self._tasks_of = tasks_of
        self._any_task_of = any_task_of or (lambda label, stage: None)
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
        return TaskDraw(group, entry.label, stage, index, task, self._pool(entry.label, task))

    def skip(self, group: int, place: TaskPlace) -> None:
        """Takes in a recorded draw whose task is not needed again: it is not made."""
        self._next_group = max(self._next_group, group + 1)
        self._stream(place.environment, place.stage).skip(place.index)

    def repeat(self, group: int, place: TaskPlace) -> TaskDraw:
        """Repeats a recorded draw. To be called in the order of the groups. Raises ValueError out of order."""
        self.skip(group, place)
        task = self._stream(place.environment, place.stage).at(place.index)
        pool = self._pool(place.environment, task)
        return TaskDraw(group, place.environment, place.stage, place.index, task, pool)

    def observe(self, draw: TaskDraw | TaskPlace, reward: float) -> None:
        """Takes in the mean reward of a group, which decides how often its pool is drawn from."""
        if self._pools is not None and draw.pool is not None:
            self._pools.observe(draw.environment, draw.pool, reward)

    def _pool(self, environment: str, task: Task) -> str | None:
        return None if self._pools is None else self._pools.name(environment, task)

    def _stream(self, environment: str, stage: int) -> _Stream:
        key = (environment, stage)
        if key not in self._streams:
            self._streams[key] = _Stream(environment, self._tasks_of(*key), self._any_task_of(*key))
        return self._streams[key]


class _Stream:
    """One split as an endless sequence that only moves forward. A task is made when it is asked for; where the
    environment cannot make it alone, so are those before it."""

    def __init__(self, name: str, tasks: Tasks, any_task: AnyTask | None) -> None:
        self._name = name
        self._tasks = tasks
        self._any_task = any_task
        self._drawn = 0
        """Index of the next task to draw."""
        self._iterator: Iterator[Task] = iter(tasks)
        self._made = 0
        """Index of the next task of the iterator."""
        self._begun = 0
        """Index of the first task of its pass over the split."""
        self._size: int | None = None
        """Tasks of the split, where that is known of one whose tasks are made alone."""

    def skip(self, index: int) -> None:
        """The task at `index` is drawn."""
        self._drawn = max(self._drawn, index + 1)

    def next(self) -> tuple[int, Task]:
        index, self._drawn = self._drawn, self._drawn + 1
        return index, self.at(index)

    def at(self, index: int) -> Task:
        if self._any_task is not None and index != self._made:
            return self._alone(self._any_task, index)
        if index < self._made:
            raise ValueError(f"draws must be repeated in order: {index} of {self._name} comes after {self._made}")
        while True:
            task = next(self._iterator, None)
            if task is None:
                size = self._made - self._begun
                self._require(size)
                self._iterator = iter(self._tasks)
                self._made = self._begun = self._made + (index - self._made) // size * size  # whole passes are alike
                continue
            self._made += 1
            if self._made == index + 1:
                return task

    def _alone(self, any_task: AnyTask, index: int) -> Task:
        if self._size is None:
            try:
                return any_task(index)
            except IndexError:
                self._size = bisect_left(range(index), True, key=partial(_is_behind, any_task))
                self._require(self._size)
        return any_task(index % self._size)

    def _require(self, size: int) -> None:
        if not size:
            raise ConfigError(f"environment {self._name} has no tasks in its split 'train'")


def _is_behind(any_task: AnyTask, index: int) -> bool:
    """Whether a split has no task at an index."""
    try:
        any_task(index)
    except IndexError:
        return True
    return False


class _Pools:
    """The recent rewards of each pool, and whether it is too easy or too hard now."""

    def __init__(self, config: DifficultyPools) -> None:
        self._config = config
        self._rewards: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=config.window))

    def admits(self, environment: str, task: Task, chance: random.Random) -> bool:
        """Whether a task may be drawn now: of easy and hard pools only some are."""
        rewards = self._rewards.get((environment, self.name(environment, task)))
        if not rewards or len(rewards) < self._config.window:
            return True
        mean = fmean(rewards)
        if mean >= self._config.easy:
            return chance.random() < self._config.keep_easy
        if mean <= self._config.hard:
            return chance.random() < self._config.keep_hard
        return True

    def observe(self, environment: str, pool: str, reward: float) -> None:
        """Takes in the reward of a group."""
        self._rewards[environment, pool].append(reward)

    def name(self, environment: str, task: Task) -> str:
        """The pool of a task, within its environment."""
        by = self._config.by
        if by is None:
            return task.id
        check_pools(self._config, environment, task)
        return str(task.info[by])


def check_pools(pools: DifficultyPools | None, environment: str, task: Task) -> None:
    """Raises ConfigError where a task cannot be put into a pool."""
    if pools is not None and pools.by is not None and pools.by not in task.info:
        raise ConfigError(
            f"groups.pools.by: tasks of {environment} have no info {pools.by!r}; they have {', '.join(task.info)}"
        )
