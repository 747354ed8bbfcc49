"""The scheduler: which groups a step trains, what is thrown away, and that a killed run goes on as if nothing were."""

import asyncio
import warnings

import pytest

from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import StopReason, read_rollouts
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.folder import RunFolder
from rlm_env.task import Task
from rlm_env.train.rl.groups import DropReason
from rlm_env.train.rl.journal import read_journal
from rlm_env.train.rl.sampler import TaskSampler
from tests.train.scheduling import DEAD, Engine, Scaffold, Scripted, config, scheduling, shaky, train_one


def numbers(batch):
    return [group.number for group in batch.groups]


async def test_a_step_gets_whole_groups_that_are_on_disk(tmp_path):
    scaffold = Scaffold(delay=lambda task, member: 0.5 * int(task.id.removeprefix("task-")))  # they end in order
    async with scheduling(tmp_path, config(), scaffold) as (scheduler, _):
        batch = await scheduler.next_batch()
        stored = {rollout.id for rollout in read_rollouts(tmp_path / "rollouts.jsonl")}
        assert numbers(batch) == [0, 1]
        assert [group.rewards for group in batch.groups] == [[0.0, 1.0, 0.0, 1.0]] * 2
        assert {rollout.id for rollout in batch.rollouts} <= stored
        assert read_journal(tmp_path / "journal.jsonl").batches == {1: [0, 1]}
        samples = batch.samples()
        assert [sample.advantage for sample in samples] == [-0.5, 0.5, -0.5, 0.5] * 2
        assert {sample.policy_version for sample in samples} == {0}


async def test_on_policy_nothing_is_begun_while_the_trainer_works(tmp_path):
    scaffold = Scaffold()
    async with scheduling(tmp_path, config(max_off_policy_steps=0), scaffold) as (scheduler, engine):
        for step in range(4):
            await scheduler.next_batch()
            begun = len(scaffold.begun)
            await asyncio.sleep(0.02)
            assert len(scaffold.begun) == begun == 8 * (step + 1)
            scheduler.trained()
            engine.version += 1
            scheduler.published(engine.version)


async def test_one_step_off_policy_the_next_step_is_made_while_the_trainer_works(tmp_path):
    scaffold = Scaffold()
    async with scheduling(tmp_path, config(steps=3, max_wait_share=0), scaffold) as (scheduler, _):
        await scheduler.next_batch()
        await asyncio.sleep(0.3)
        assert len(scaffold.begun) == 2 * 8  # this step's and the next one's, not those after it


async def test_no_more_is_made_than_the_run_needs(tmp_path):
    scaffold = Scaffold()
    async with scheduling(tmp_path, config(steps=2), scaffold) as (scheduler, engine):
        for _ in range(2):
            await train_one(scheduler, engine)
        await asyncio.sleep(0.02)
    assert len(scaffold.begun) == 2 * 8


@pytest.mark.parametrize("off_policy", [0, 1, 2])
@pytest.mark.parametrize("late", [0.0, 0.004, 0.02])
async def test_off_policy_steps_are_never_exceeded(tmp_path, off_policy, late):
    """However long weights are on their way into the engine while the next batch is gathered and trained."""
    scaffold = Scaffold(delay=shaky(off_policy, 0.03))
    settings = config(steps=12, max_off_policy_steps=off_policy, max_wait_share=0)
    seen, arriving = [], None

    async def arrive(scheduler, engine, version):
        await asyncio.sleep(late)
        engine.version = version
        scheduler.published(version)

    async with scheduling(tmp_path, settings, scaffold) as (scheduler, engine):
        for step in range(12):
            batch = await scheduler.next_batch()
            await asyncio.sleep(0.005 * (step % 3))
            scheduler.trained()
            if arriving is not None:
                await arriving
            arriving = asyncio.create_task(arrive(scheduler, engine, step + 1))
            seen += [step - rollout.group.policy_version for rollout in batch.rollouts]
    await arriving
    assert max(seen) <= off_policy
    assert (max(seen) > 0) == (off_policy > 0)


@pytest.mark.parametrize("off_policy", [0, 1])
async def test_weights_that_never_arrive_hold_up_nobody(tmp_path, off_policy):
    """On-policy nothing at all is begun until they are there."""
    settings = config(steps=9, max_off_policy_steps=off_policy, max_wait_share=0)
    async with scheduling(tmp_path, settings, Scaffold()) as (scheduler, _):
        for _ in range(1 + off_policy):
            await scheduler.next_batch()
            scheduler.trained()
        waiting = asyncio.create_task(scheduler.next_batch())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        scheduler.fail(DEAD)
        with pytest.raises(EngineUnavailable):
            await asyncio.wait_for(waiting, 10)


async def test_weights_that_arrive_after_the_end_begin_nothing(tmp_path):
    scaffold = Scaffold()
    async with scheduling(tmp_path, config(), scaffold) as (scheduler, _):
        await scheduler.next_batch()
        scheduler.trained()
    begun = len(scaffold.begun)
    scheduler.published(1)
    await asyncio.sleep(0.02)
    assert len(scaffold.begun) == begun


async def test_the_trainer_waits_for_a_slow_group_rather_than_drop_it(tmp_path):
    scaffold = Scaffold(delay=lambda task, member: 0.5 if task.id == "task-2" else 0.0)
    settings = config(steps=6, max_off_policy_steps=2, max_wait_share=0)
    async with scheduling(tmp_path, settings, scaffold) as (scheduler, engine):
        batches = [await train_one(scheduler, engine) for _ in range(6)]
    (late,) = (batch for batch in batches if 2 in numbers(batch))
    slow = late.groups[0]
    assert late.step - 1 - slow.oldest_policy_version == 2
    assert late.seconds >= late.seconds_overdue > 0.1
    assert sum(batch.seconds_overdue for batch in batches) == late.seconds_overdue
    assert not any(batch.dropped[reason] for batch in batches for reason in DropReason)


async def test_zero_advantage_groups_are_replaced_and_their_number_is_bounded(tmp_path):
    equal = {"task-0", "task-2", "task-3"}
    scaffold = Scaffold(reply=lambda task, member: 1.0 if task.id in equal else float(member % 2))
    async with scheduling(tmp_path, config(max_off_policy_steps=0), scaffold) as (scheduler, _):
        batch = await scheduler.next_batch()
    assert (numbers(batch), len(batch.dropped[DropReason.ZERO_ADVANTAGE])) == ([1, 4], 3)
    always = Scaffold(reply=lambda task, member: 1.0)
    async with scheduling(tmp_path / "all", config(max_zero_advantage_share=0.5), always) as (scheduler, _):
        batch = await scheduler.next_batch()
    assert (len(batch.groups), len(batch.dropped[DropReason.ZERO_ADVANTAGE])) == (2, 2)
    assert all(sample.advantage == 0 for sample in batch.samples())


@pytest.mark.parametrize("weight", [0.0, 0.1])
async def test_a_cost_penalty_does_not_switch_dynamic_sampling_off(tmp_path, weight):
    """Three of four tasks are solved by all, at other costs each time. Scores teach as much with a penalty as without,
    and what differs in cost alone is half of a step at most."""

    def reply(task, member):
        return float(int(task.id.removeprefix("task-")) % 4 > 0 or member % 2)

    settings = config(steps=3, per_step=4, advantage={"cost_weight": weight})
    async with scheduling(tmp_path, settings, Scaffold(reply=reply, calls=lambda member: 10 + member)) as (
        scheduler,
        engine,
    ):
        for _ in range(3):
            batch = await train_one(scheduler, engine)
            alone = [group.differs_in_cost_alone for group in batch.groups]
            mixed = [len(set(group.scored)) > 1 for group in batch.groups]
            assert sum(mixed) >= 2
            assert sum(alone) == (4 - sum(mixed) if weight else 0)


async def test_a_rollout_that_hangs_does_not_hold_up_its_group_for_ever(tmp_path):
    scaffold = Scaffold(delay=lambda task, member: 60.0 if member == 3 else 0.0)
    async with scheduling(tmp_path, config(timeout=0.2), scaffold) as (scheduler, _):
        batch = await scheduler.next_batch()
    assert [group.rewards for group in batch.groups] == [[0.0, 1.0, 0.0]] * 2


async def test_a_rollout_of_a_dead_engine_is_made_again(tmp_path):
    deaths = {"task-0": 2}

    def reply(task, member):
        if member == 1 and deaths.get(task.id):
            deaths[task.id] -= 1
            return DEAD
        return float(member % 2)

    async with scheduling(tmp_path, config(), Scaffold(reply)) as (scheduler, engine):
        batch = await scheduler.next_batch()
    assert engine.restarts == 2
    assert [group.rewards for group in batch.groups] == [[0.0, 1.0, 0.0, 1.0]] * 2


async def test_a_failed_rollout_is_outside_mean_and_count(tmp_path):
    scaffold = Scaffold(reply=lambda task, member: "REPL: gone" if member == 0 else float(member == 1))
    async with scheduling(tmp_path, config(), scaffold) as (scheduler, _):
        batch = await scheduler.next_batch()
    assert batch.groups[0].rewards == [None, 1.0, 0.0, 0.0]
    advantages = [sample.advantage for sample in batch.samples()][:3]
    assert advantages == pytest.approx([2 / 3, -1 / 3, -1 / 3])


async def test_a_rollout_that_cannot_be_stored_counts_as_failed(tmp_path):
    class Forging(Scaffold):
        async def rollout(self, task, llm, sub=None, *, id, context):
            rollout = await super().rollout(task, llm, id=id, context=context)
            if id.endswith("/0"):
                rollout.info["forged"] = float("nan")
            return rollout

    scaffold = Forging(reply=lambda task, member: float(member == 1))
    async with scheduling(tmp_path, config(), scaffold) as (scheduler, _):
        batch = await scheduler.next_batch()
    assert batch.groups[0].rewards == [None, 1.0, 0.0, 0.0]
    stored = [rollout for rollout in read_rollouts(tmp_path / "rollouts.jsonl") if rollout.error]
    assert stored
    assert all("cannot be stored as JSON" in rollout.error for rollout in stored)
    assert all(rollout.group is not None for rollout in stored)


async def test_rollouts_that_all_fail_stop_the_run_and_say_why(tmp_path):
    async with scheduling(tmp_path, config(), Scaffold(reply=lambda task, member: "REPL: no walls")) as (scheduler, _):
        with pytest.raises(RunStopped, match="no walls"):
            await scheduler.next_batch()


async def test_rollouts_that_all_end_at_a_limit_and_are_left_out_stop_the_run_and_say_why(tmp_path):
    class Limited(Scaffold):
        async def rollout(self, task, llm, sub=None, *, id, context):
            rollout = await super().rollout(task, llm, id=id, context=context)
            if rollout.error is None:
                rollout.stop_reason = StopReason.ROOT_TOKENS if id.endswith("/0") else StopReason.MAX_TURNS
            return rollout

    scaffold = Limited(reply=lambda task, member: "REPL: gone" if member == 3 else 1.0)
    async with scheduling(tmp_path, config(unfinished="drop"), scaffold) as (scheduler, _):
        with pytest.raises(
            RunStopped,
            match=r"7 groups of one step failed: 21 rollouts ended at a limit \(max_turns 14, root_tokens 7\), and "
            r'groups\.unfinished = "drop" leaves them out: raise that limit, .*; REPL: gone$',
        ):
            await scheduler.next_batch()


async def test_a_disk_that_refuses_stops_the_run(tmp_path, monkeypatch):
    def full(folder, rollout):
        raise RunStopped("disk full", "no space left", 1)

    monkeypatch.setattr(RunFolder, "append", full)
    async with scheduling(tmp_path, config(), Scaffold()) as (scheduler, _):
        with pytest.raises(RunStopped, match="no space left"):
            await scheduler.next_batch()


@pytest.mark.parametrize("off_policy", [0, 1])
@pytest.mark.parametrize(("checkpoint", "killed"), [(0, 1), (2, 4), (3, 3), (1, 5)])
async def test_a_killed_run_goes_on_with_nothing_trained_twice_or_lost(tmp_path, checkpoint, killed, off_policy):
    settings = config(steps=8, max_off_policy_steps=off_policy)
    async with scheduling(tmp_path / "whole", settings, Scaffold()) as (scheduler, engine):
        whole = [await train_one(scheduler, engine) for _ in range(8)]
    scaffold = Scaffold(delay=shaky(1))
    async with scheduling(tmp_path / "cut", settings, scaffold) as (scheduler, engine):
        first = [await train_one(scheduler, engine) for _ in range(killed)]
        before = len(scaffold.begun)
    again = Scaffold(delay=shaky(2))
    async with scheduling(tmp_path / "cut", settings, again, trained=checkpoint) as (scheduler, engine):
        replayed = [scheduler.replaying]
        second = []
        for _ in range(checkpoint, 8):
            second.append(await train_one(scheduler, engine))
            replayed.append(scheduler.replaying)
    assert replayed[: killed - checkpoint + 1] == [True] * (killed - checkpoint) + [False]
    for old, new in zip(first[checkpoint:], second, strict=False):
        assert [r.to_dict() for r in old.rollouts] == [r.to_dict() for r in new.rollouts]
    trained = [number for batch in [*first[:checkpoint], *second] for number in numbers(batch)]
    history = read_journal(tmp_path / "cut" / "journal.jsonl")
    assert len(trained) == len(set(trained)) == 16
    assert not history.dropped & set(trained)
    assert [history.drawn[number].index for number in sorted(history.drawn)] == sorted(history.drawn)
    if off_policy == 0:
        assert sorted(trained) == sorted(number for batch in whole for number in numbers(batch))
    assert before > 0
    stored = list(read_rollouts(tmp_path / "cut" / "rollouts.jsonl"))
    scored = [rollout.id for rollout in stored if rollout.score is not None]
    assert len(scored) == len(set(scored))
    kept = {rollout.id for rollout in stored if rollout.score is None}  # of which the score was not there yet
    assert not kept & set(again.begun)


class Judged(Engine):
    """Its judge is gone for good."""

    async def judge_is_up(self):
        raise DEAD


async def no_verdict(environment, task, rollout):
    raise DEAD


async def test_rollouts_that_wait_for_a_judge_that_is_gone_are_scored_on_resume(tmp_path, monkeypatch):
    settings = config(max_off_policy_steps=0)
    with monkeypatch.context() as gone:
        gone.setattr(Scripted, "judge", no_verdict)
        async with scheduling(tmp_path, settings, Scaffold(), engine=Judged()) as (scheduler, _):
            with pytest.raises(EngineUnavailable):
                await scheduler.next_batch()
    kept = {rollout.id: rollout.score for rollout in read_rollouts(tmp_path / "rollouts.jsonl")}
    assert {f"000000/{member}" for member in range(4)} <= kept.keys()
    assert set(kept.values()) == {None}
    scaffold = Scaffold()
    async with scheduling(tmp_path, settings, scaffold) as (scheduler, engine):
        batch = await train_one(scheduler, engine)
        assert [group.rewards for group in batch.groups] == [[0.0, 1.0, 0.0, 1.0]] * 2
        assert not kept.keys() & set(scaffold.begun)
    async with scheduling(tmp_path, settings, scaffold) as (scheduler, engine):
        assert scheduler.replaying
        assert [group.rewards for group in (await scheduler.next_batch()).groups] == [[0.0, 1.0, 0.0, 1.0]] * 2


@pytest.mark.parametrize("impossible", ["[0.7]", "[NaN]", "null"])
async def test_a_stored_rollout_that_cannot_be_trained_is_left_out_on_resume(tmp_path, impossible):
    """Runs of earlier versions stored what an engine answered, and then stopped at it."""
    settings = config(max_off_policy_steps=0)
    async with scheduling(tmp_path, settings, Scaffold()) as (scheduler, _):
        await scheduler.next_batch()
    path = tmp_path / "rollouts.jsonl"
    lines = path.read_text().splitlines()
    (bad,) = [number for number, line in enumerate(lines) if '"id":"000001/2"' in line]
    lines[bad] = lines[bad].replace('"logprobs":[-0.5]', f'"logprobs":{impossible}')
    path.write_text("".join(f"{line}\n" for line in lines))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        async with scheduling(tmp_path, settings, Scaffold()) as (scheduler, _):
            assert scheduler.replaying
            batch = await scheduler.next_batch()
    (warning,) = [str(warning.message) for warning in said if "left out" in str(warning.message)]
    assert warning.startswith(f"{path}: rollout '000001/2'")
    assert [len(group.rollouts) for group in batch.groups] == [4, 3]
    assert len(batch.samples()) == 7


async def test_what_groups_scored_counts_for_the_pools_after_a_restart(tmp_path, monkeypatch):
    observed: dict[str, float] = {}
    settings = config(max_off_policy_steps=0, pools={})
    monkeypatch.setattr(TaskSampler, "observe", lambda _, draw, reward: observed.update({draw.pool: reward}))
    scaffold = Scaffold(
        reply=lambda task, member: "gone" if member == 0 else member / (1 + int(task.id.removeprefix("task-")))
    )
    async with scheduling(tmp_path, settings, scaffold) as (scheduler, engine):
        for _ in range(2):
            await train_one(scheduler, engine)
        await asyncio.sleep(0.02)
    before = {f"task-{group}": observed[f"task-{group}"] for group in (0, 1, 2, 3)}
    observed.clear()
    async with scheduling(tmp_path, settings, Scaffold(delay=lambda task, member: 60.0), trained=2):
        assert {pool: observed[pool] for pool in before} == pytest.approx(before)


async def test_of_what_is_trained_no_rollout_is_read_and_no_task_made_again(tmp_path, monkeypatch):
    """Of groups 0 to 3 nothing is: their lines may even be damaged behind the id. Of a group that is needed again
    they may not, and its rollouts may not be gone."""
    settings = config(max_off_policy_steps=0)
    async with scheduling(tmp_path, settings, Scaffold()) as (scheduler, engine):
        for _ in range(3):
            await train_one(scheduler, engine)
    path = tmp_path / "rollouts.jsonl"
    lines = path.read_text().splitlines()
    trained = [line for line in lines if any(f'"id":"00000{group}/' in line for group in range(4))]
    later = [line for line in lines if line not in trained]
    path.write_text("".join(f"{line[:60]}\n" for line in trained) + "".join(f"{line}\n" for line in later))
    scaffold = Scaffold()
    made = []
    monkeypatch.setattr(Task, "__post_init__", lambda task: made.append(task.id))
    async with scheduling(tmp_path, settings, scaffold, trained=2) as (scheduler, engine):
        assert scheduler.replaying
        batch = await train_one(scheduler, engine)
        assert numbers(batch) == [4, 5]
        assert not made
        await train_one(scheduler, engine)
    path.write_text("".join(f"{line}\n" for line in lines if '"id":"000005/' not in line))
    with pytest.raises(ConfigError, match=r"rollouts\.jsonl has lost the rollouts of group 5, which step 3 trained"):
        async with scheduling(tmp_path, settings, scaffold, trained=2):
            pass
