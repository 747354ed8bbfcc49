"""How far off-policy samples are, and how often slow rollouts are trained: on a simulated clock."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlm_env.runs.errors import RunStopped
from rlm_env.runs.folder import RunFolder
from rlm_env.scoring import score
from rlm_env.train.rl.groups import DropReason
from rlm_env.train.rl.journal import read_journal
from tests.train.scheduling import DEAD, Engine, Scaffold, config, scheduling, train_one
from tests.train.simulated_clock import simulate

STEP = 10.0
"""Seconds that the trainer takes for a step."""


@pytest.fixture(autouse=True)
def nothing_real(monkeypatch):
    """No disk, and no processes that score: the simulated clock would not wait for them."""

    async def score_here(environment, task, rollout):
        return score(environment, task, rollout)

    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(RunFolder, "append", lambda folder, rollout: rollout)
    monkeypatch.setattr("rlm_env.train.rl.rollouts.score_rollout", score_here)


@dataclass
class Result:
    off_policy: float
    """Mean over trained groups."""
    trained: Counter[bool]
    """Slow or not -> groups."""
    drawn: Counter[bool]
    """The same, without groups that were open at the end."""
    dropped: int
    seconds: float
    waits: list[float] = field(default_factory=list)


def number(task) -> int:
    return int(task.id.removeprefix("task-"))


def run(folder: Path, delay, slow=lambda task_number: False, steps=1000, train_seconds=STEP, **groups) -> Result:
    groups = {"size": 2, "per_step": 4, "concurrency": 64, **groups}

    async def go() -> Result:
        batches = []
        async with scheduling(folder, config(steps=steps, **groups), Scaffold(delay=delay)) as (scheduler, engine):
            for _ in range(steps):
                batches.append(await train_one(scheduler, engine, train_seconds))
        trained = [group for batch in batches for group in batch.groups]
        history = read_journal(folder / "journal.jsonl")
        settled = history.drawn.keys() - set(history.open)
        return Result(
            sum(batch.step - 1 - group.oldest_policy_version for batch in batches for group in batch.groups)
            / len(trained),
            Counter(slow(group.number) for group in trained),
            Counter(slow(group) for group in settled),
            sum(len(groups) for batch in batches for groups in batch.dropped.values()),
            asyncio.get_running_loop().time(),
            [batch.seconds for batch in batches],
        )

    return simulate(go())


def share(counter: Counter[bool]) -> float:
    return counter[True] / counter.total()


@pytest.mark.parametrize("limit", [1, 2, 4, 8])
def test_fast_rollouts_are_trained_on_policy_however_far_off_policy_is_allowed(tmp_path, limit):
    found = run(tmp_path, lambda task, member: 4.0, steps=250, max_off_policy_steps=limit)
    assert found.off_policy == 0
    assert found.seconds == pytest.approx(250 * (STEP + 4.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rollouts_that_take_less_than_a_step_are_less_than_half_a_step_off_policy(tmp_path, seed):
    chance = random.Random(seed)
    found = run(tmp_path, lambda task, member: chance.uniform(0.1, 0.9) * STEP, max_off_policy_steps=2)
    assert found.off_policy < 0.5
    assert found.dropped == 0


def test_a_trainer_that_may_not_wait_gets_rollouts_one_step_off_policy(tmp_path):
    found = run(tmp_path, lambda task, member: 4.0, max_off_policy_steps=8, max_wait_share=0)
    assert found.seconds == pytest.approx(1000 * STEP + 4.0, rel=0.01)
    assert 0.9 < found.off_policy <= 1.1


@pytest.mark.slow
def test_rollouts_that_take_several_steps_are_begun_as_far_ahead_as_that_needs(tmp_path):
    found = run(tmp_path, lambda task, member: 3.5 * STEP, max_off_policy_steps=8)
    assert found.off_policy == pytest.approx(3, abs=0.1)  # 3.5 steps less the one that the trainer may wait
    assert found.seconds < 1000 * 2 * STEP


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 4])
def test_slow_tasks_are_trained_in_the_proportion_in_which_they_are_drawn(tmp_path, limit):
    """Half of the tasks take 3.5 steps of the trainer."""

    def slow(task_number: int) -> bool:
        return random.Random(task_number).random() < 0.5

    def delay(task, member) -> float:
        return 3.5 * STEP if slow(number(task)) else 0.2 * STEP

    found = run(tmp_path, delay, slow, max_off_policy_steps=limit)
    assert abs(share(found.trained) - share(found.drawn)) < 0.02
    assert found.dropped == 0


@pytest.mark.slow
def test_a_heavy_tail_is_trained_as_it_is_drawn_and_delays_few_steps(tmp_path):
    """One task in twenty takes ten times as long as the others, and four steps."""

    def slow(task_number: int) -> bool:
        return random.Random(task_number).random() < 0.05

    def delay(task, member) -> float:
        return 4.0 * STEP if slow(number(task)) else random.Random(f"{task.id}/{member}").uniform(0.2, 0.6) * STEP

    found = run(tmp_path, delay, slow, max_off_policy_steps=4)
    assert abs(share(found.trained) - share(found.drawn)) < 0.02
    assert found.dropped == 0
    assert found.off_policy < 0.5
    assert found.seconds < 1000 * 1.9 * STEP  # 1.6 without the tail; if each step waited for it, 1.6 + 0.2 * 3.4


def test_new_weights_that_take_long_to_arrive_count_as_waiting(tmp_path):
    async def go() -> float:
        ages = []
        settings = config(steps=60, max_off_policy_steps=2)
        async with scheduling(tmp_path, settings, Scaffold(delay=lambda task, member: 4.0)) as (scheduler, engine):

            async def arrive(version: int) -> None:
                await asyncio.sleep(8.0)
                engine.version = version
                scheduler.published(version)

            for step in range(1, 61):
                batch = await scheduler.next_batch()
                ages += [step - 1 - group.oldest_policy_version for group in batch.groups]
                await asyncio.sleep(STEP)
                scheduler.trained()
                arriving = asyncio.create_task(arrive(step))
            await arriving
        return sum(ages[-40:]) / 40

    assert 0.9 <= simulate(go()) <= 2.0  # 4 s and 8 s are more than the 10 s that the trainer may wait


def test_the_time_limit_of_a_group_begins_with_its_first_slot(tmp_path):
    """Each rollout takes 0.1 s and the limit is 0.5 s, but 32 rollouts wait for 4 slots."""
    found = run(
        tmp_path, lambda task, member: 0.1, steps=3, train_seconds=0.0, size=4, per_step=8, concurrency=4, timeout=0.5
    )
    assert found.dropped == 0
    assert found.trained.total() == 24


def test_groups_that_the_time_limit_closes_are_named_when_the_run_stops(tmp_path):
    with pytest.raises(RunStopped, match=r"7 groups of one step failed: 7 were closed by groups\.timeout .*: raise it"):
        run(tmp_path, lambda task, member: 60.0, steps=1, per_step=2, timeout=0.5)


def test_the_idle_shares_of_engine_and_trainer_are_measured(tmp_path):
    async def go():
        settings = config(steps=20)
        async with scheduling(tmp_path, settings, Scaffold(delay=lambda task, member: 5.0)) as (scheduler, engine):
            return [await train_one(scheduler, engine, STEP) for _ in range(20)][-1]

    batch = simulate(go())
    assert batch.seconds == pytest.approx(5.0)
    assert batch.engine_idle == pytest.approx(2 / 3)
    assert not any(batch.dropped[reason] for reason in DropReason)


def test_the_clock_of_a_group_stands_still_while_a_dead_engine_is_waited_for(tmp_path):
    """Two rollouts of the first group meet a dead engine, which is away for longer than a group may take; of the second
    group one does, and another one hangs."""
    deaths = {"task-0": 2, "task-1": 1}

    class Away(Engine):
        async def restart(self):
            await super().restart()
            await asyncio.sleep(200.0)

    def reply(task, member):
        if member in (1, 2) and deaths.get(task.id):
            deaths[task.id] -= 1
            return DEAD
        return float(member % 2)

    async def first_batch():
        scaffold = Scaffold(reply, delay=lambda task, member: 1000.0 if (task.id, member) == ("task-1", 3) else 60.0)
        async with scheduling(tmp_path, config(timeout=150.0), scaffold, engine=Away()) as (scheduler, engine):
            batch = await scheduler.next_batch()
            return batch, engine, asyncio.get_running_loop().time()

    batch, engine, ended = simulate(first_batch())
    assert engine.restarts == 3
    assert [group.rewards for group in batch.groups] == [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert [group.timed_out for group in batch.groups] == [False, True]
    assert ended == 350.0  # the limit, and the time in which the engine was away
