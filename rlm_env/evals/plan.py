"""Which rollouts a run makes, in which order, and the making of one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rlm_env.evals.until import UntilTest
from rlm_env.events import OnEvent
from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import Rollout
from rlm_env.runs.engines import Engines
from rlm_env.scaffolds import Scaffold
from rlm_env.scoring.errors import failed
from rlm_env.task import Task

PlannedRollout = tuple[Scaffold, Task, int]
"""(scaffold, task, repeat)"""


def plan(tasks: Sequence[Task], scaffolds: Collection[Scaffold], repeats: int, test: UntilTest) -> list[PlannedRollout]:
    """All rollouts of a run: all tasks once before any is repeated, a task's scaffolds side by side.

    With a test that may end the run, a task's repeats come side by side too, since the test counts whole tasks. Once
    it has decided, only scaffolds that it does not compare have anything to do, on the tasks that it has counted.
    """
    if test.decided:
        tasks = tasks[: test.counted]
        scaffolds = [scaffold for scaffold in scaffolds if scaffold.name not in test.scaffolds]
    if test.scaffolds:
        return [(scaffold, task, repeat) for task in tasks for repeat in range(repeats) for scaffold in scaffolds]
    return [(scaffold, task, repeat) for repeat in range(repeats) for task in tasks for scaffold in scaffolds]


async def make_rollout(planned: PlannedRollout, engines: Engines, on_event: OnEvent | None) -> Rollout:
    """One rollout without a score. A defect in the environment fails this rollout, not the run. Raises
    EngineUnavailable."""
    scaffold, task, repeat = planned
    id = f"{scaffold.name}/{task.id}/{repeat}"
    try:
        rollout = await scaffold.rollout(task, engines.root, engines.sub, id=id, on_event=on_event)
    except EngineUnavailable:
        raise
    except Exception as error:
        rollout = failed(scaffold.open_record(task, id), error)
    rollout.info["repeat"] = repeat
    return rollout
