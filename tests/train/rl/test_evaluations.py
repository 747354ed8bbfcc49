"""Held-out evaluations beside the training: which weights they are on, in which order they come, what stops them."""

import asyncio
import io

import pytest
from rich.console import Console

from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import Rollout
from rlm_env.runs.jsonl import read_jsonl
from rlm_env.train.report.metrics import MetricsLog, read_metrics
from rlm_env.train.rl.evaluations import Evaluations
from rlm_env.train.rl.held_out import HeldOut
from tests.train.rl.test_held_out import Both, Held
from tests.train.scheduling import DEAD, Engine, config

ALL = 8
"""Slots of the run."""


class Counting(Held):
    """Waits for `go` before it answers; counts the rollouts in flight."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()
        self.in_flight = self.most = 0

    async def rollout(self, task, llm, sub=None, *, id, context):
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self.go.wait()
            return await super().rollout(task, llm, id=id, context=context)
        finally:
            self.in_flight -= 1


class Case:
    """Evaluations of a run in `folder`, and what they tell."""

    def __init__(self, folder, scaffold, metrics, held_out, every, engine):
        self.folder, self.scaffold, self.engine = folder, scaffold, engine
        self.errors = []
        self.evaluations = Evaluations(
            config().held_out.model_copy(update={"n": 6, "every": every}), held_out, metrics, self.errors.append
        )

    def lines(self):
        return [(line["step"], *self.weights(line)) for line in read_metrics(self.folder / "metrics.jsonl")]

    @staticmethod
    def weights(line):
        return tuple(line[f"eval/scripted/policy_version/{end}"] for end in ("min", "max"))


@pytest.fixture
def case(tmp_path):
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(scaffold=None, every=2):
            settings = config(concurrency=ALL)
            settings = settings.model_copy(update={"held_out": settings.held_out.model_copy(update={"n": 6})})
            engine, scaffold = Engine(), scaffold or Counting()
            metrics = stack.enter_context(MetricsLog(tmp_path, Console(file=io.StringIO())))
            held_out = stack.enter_context(HeldOut(settings, Both(scaffold), engine, tmp_path))
            return Case(tmp_path, scaffold, metrics, held_out, every, engine)

        yield make


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task's state
            await asyncio.sleep(0.001)


async def test_the_training_does_not_wait_and_each_rollout_records_its_weights(case, tmp_path):
    one = case()
    one.engine.version = 2
    one.evaluations.begin(2)  # returns at once
    await until(lambda: one.scaffold.in_flight)
    assert one.scaffold.most == ALL // 4  # beside the training
    one.engine.version = 4  # an update meanwhile
    one.scaffold.go.set()
    await until(lambda: len(one.lines()) == 1)
    assert one.lines() == [(2, 2.0, 4.0)]
    places = [rollout.group for rollout in read_jsonl(tmp_path / "held_out.jsonl", Rollout.from_json)]
    assert sorted((place.policy_version, place.last_policy_version) for place in places) == [(2, 4)] * 2 + [(4, 4)] * 4


async def test_the_first_is_waited_for_by_the_first_update_and_has_all_slots(case):
    one = case()
    one.evaluations.begin(0)
    update = asyncio.create_task(one.evaluations.baseline())
    await until(lambda: one.scaffold.in_flight == 6)
    assert not update.done()
    one.scaffold.go.set()
    await update
    assert one.lines() == [(0, 0.0, 0.0)]
    await one.evaluations.baseline()  # nothing to wait for any more
    one.evaluations.begin(0)  # it is on disk
    one.evaluations.begin(1)  # not due
    await asyncio.sleep(0.01)
    assert len(one.lines()) == 1


async def test_it_begins_when_the_weights_have_arrived(case):
    one = case()
    one.scaffold.go.set()

    async def publish():
        await asyncio.sleep(0.02)
        one.engine.version = 2

    one.evaluations.begin(2, asyncio.create_task(publish()))
    await until(one.lines)
    assert one.lines() == [(2, 2.0, 2.0)]


async def test_one_at_a_time_and_of_those_that_are_due_the_newest(case):
    one = case()
    for step in (2, 4, 6):
        one.engine.version = step
        one.evaluations.begin(step)
        await asyncio.sleep(0.005)
    assert one.scaffold.most == ALL // 4
    one.scaffold.go.set()
    await until(lambda: len(one.lines()) == 2)
    assert [step for step, _, _ in one.lines()] == [2, 6]


async def test_the_last_is_on_the_final_weights_alone(case):
    one = case()
    one.engine.version = 2
    one.evaluations.begin(2)
    await until(lambda: one.scaffold.in_flight)
    one.evaluations.begin(4)
    one.engine.version = 5
    finish = asyncio.create_task(one.evaluations.finish(5))
    await asyncio.sleep(0.005)
    assert one.scaffold.most == ALL // 4  # the one before has not ended
    one.scaffold.go.set()
    await finish
    assert one.lines() == [(2, 2.0, 5.0), (5, 5.0, 5.0)]
    assert one.scaffold.most == 6
    await one.evaluations.finish(5)
    assert len(one.lines()) == 2


async def test_what_a_killed_run_had_begun_is_made_up_for(case):
    one = case(every=2)
    one.engine.version = 2
    one.evaluations.begin(2)
    await until(lambda: one.scaffold.in_flight)
    await one.evaluations.stop()
    assert (one.lines(), one.errors) == ([], [])
    one.engine.version = 3
    one.scaffold.go.set()
    one.evaluations.begin(3)  # as a resumed run does
    await until(one.lines)
    assert one.lines() == [(2, 3.0, 3.0)]


async def test_no_later_weights_stand_for_the_initial_ones(case):
    one = case(every=10)
    one.scaffold.go.set()
    one.engine.version = 3
    for step in (1, 3, 9):  # as a resumed run does, whose first evaluation was interrupted or switched off
        one.evaluations.begin(step)
    await asyncio.sleep(0.02)
    assert one.lines() == []
    one.engine.version = 10
    one.evaluations.begin(10)
    await until(one.lines)
    assert one.lines() == [(10, 10.0, 10.0)]


async def test_an_engine_that_does_not_come_back_is_told_to_the_run(case):
    class Lost(Engine):
        async def restart(self):
            raise EngineUnavailable("vLLM does not start any more")

    one = case(Held(DEAD))
    one.evaluations._held_out._engine = Lost()
    one.evaluations.begin(0)
    await one.evaluations.baseline()
    assert [str(error) for error in one.errors] == ["vLLM does not start any more"]
    with pytest.raises(EngineUnavailable):
        await one.evaluations.finish(4)


async def test_without_tasks_nothing_is_evaluated(case):
    one = case()
    one.evaluations._config = one.evaluations._config.model_copy(update={"n": 0})
    one.evaluations.begin(0)
    await one.evaluations.baseline()
    await one.evaluations.finish(4)
    assert one.lines() == []


async def test_one_that_becomes_due_again_while_it_runs_is_made_once(case):
    one = case()
    one.engine.version = 2
    one.evaluations.begin(2)
    await until(lambda: one.scaffold.in_flight)
    one.evaluations.begin(3)  # with `every = 2`, that of step 2 once more
    one.scaffold.go.set()
    await until(one.lines)
    await one.evaluations.finish(2)
    assert one.lines() == [(2, 2.0, 2.0)]
