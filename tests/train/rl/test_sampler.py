"""The order of tasks: the mix, the curriculum, pools, repeating draws after a restart; and the journal."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.runs.errors import ConfigError
from rlm_env.task import Task, Tasks
from rlm_env.train.rl.config import DifficultyPools, TrainEnvironment
from rlm_env.train.rl.groups import DropReason
from rlm_env.train.rl.journal import Journal, read_journal
from rlm_env.train.rl.sampler import TaskPlace, TaskSampler


def tasks_of(sizes=None):
    """`<name>:<stage>` numbered tasks; endless unless `sizes` names a length."""

    def tasks(name, stage):
        def make():
            index = 0
            while sizes is None or index < sizes[name]:
                yield Task(f"{name}:{stage}:{index}", id=f"{stage}-{index}", info={"length": index % 2})
                index += 1

        return Tasks(make, "train")

    return tasks


def environments(**weights):
    return [TrainEnvironment(name=name, weight=weight) for name, weight in weights.items()]


def questions(sampler, count, step=0):
    return [sampler.draw(step).task.question for _ in range(count)]


def test_environments_come_by_weight_and_each_in_its_own_order():
    sampler = TaskSampler(environments(a=3, b=1), tasks_of(), seed=0)
    draws = [sampler.draw(0) for _ in range(2000)]
    share = Counter(draw.environment for draw in draws)["a"] / 2000
    assert 0.71 < share < 0.79
    for name in "ab":
        mine = [draw for draw in draws if draw.environment == name]
        assert [draw.index for draw in mine] == list(range(len(mine)))
        assert mine[5].task.question == f"{name}:-1:5"
    assert [draw.group for draw in draws] == list(range(2000))


def test_equal_seeds_give_equal_orders_and_others_do_not():
    first = questions(TaskSampler(environments(a=1, b=1), tasks_of(), seed=3), 50)
    assert questions(TaskSampler(environments(a=1, b=1), tasks_of(), seed=3), 50) == first
    assert questions(TaskSampler(environments(a=1, b=1), tasks_of(), seed=4), 50) != first


def test_a_finite_split_is_gone_through_again_and_an_empty_one_is_refused():
    assert questions(TaskSampler(environments(a=1), tasks_of({"a": 2}), seed=0), 5) == [
        "a:-1:0",
        "a:-1:1",
        "a:-1:0",
        "a:-1:1",
        "a:-1:0",
    ]
    with pytest.raises(ConfigError, match="a has no tasks"):
        TaskSampler(environments(a=1), tasks_of({"a": 0}), seed=0).draw(0)


def test_the_curriculum_follows_the_step():
    stages = ({"from_step": 10, "options": {}}, {"from_step": 20, "options": {}})
    sampler = TaskSampler([TrainEnvironment(name="a", curriculum=stages)], tasks_of(), seed=0)
    found = [sampler.draw(step).task.question for step in (0, 9, 10, 19, 20, 500)]
    assert found == ["a:-1:0", "a:-1:1", "a:0:0", "a:0:1", "a:1:0", "a:1:1"]


def test_easy_pools_are_asked_less_often():
    pools = DifficultyPools(by="length", window=2, keep_easy=0.25)
    sampler = TaskSampler(environments(a=1), tasks_of(), seed=0, pools=pools)
    seen = Counter()
    for _ in range(800):
        draw = sampler.draw(0)
        seen[draw.task.info["length"]] += 1
        sampler.observe(draw, 1.0 if draw.task.info["length"] == 1 else 0.5)
    assert 0.15 < seen[1] / 800 < 0.26  # a quarter of the odd ones against all of the even ones
    lost = DifficultyPools(by="size")
    with pytest.raises(ConfigError, match=r"groups\.pools\.by: tasks of a have no info 'size'; they have length"):
        TaskSampler(environments(a=1), tasks_of(), seed=0, pools=lost).draw(0)


def place_of(draw):
    return TaskPlace(draw.environment, draw.stage, draw.index, draw.pool)


def any_task_of(sizes):
    """Of `a`, whose tasks can be made alone."""

    def make(name, stage):
        def task(index):
            if index >= sizes[name]:
                raise IndexError(index)
            return next(islice(tasks_of(sizes)(name, stage), index, None))

        return task if name == "a" else None

    return make


@given(
    count=st.integers(1, 30),
    seed=st.integers(0, 5),
    step=st.integers(0, 30),
    open_=st.sets(st.integers(0, 29)),
    alone=st.booleans(),
)
def test_repeated_draws_are_the_same_and_what_follows_is_too(count, seed, step, open_, alone):
    """Whichever of them are needed again, and whether or not tasks can be made alone."""
    mix = [TrainEnvironment(name="a", curriculum=({"from_step": 15, "options": {}},)), TrainEnvironment(name="b")]
    sizes, pools = {"a": 7, "b": 1000}, DifficultyPools(by="length")
    sampler = TaskSampler(mix, tasks_of(sizes), seed, pools)
    draws = [sampler.draw(step + group) for group in range(count + 5)]
    resumed = TaskSampler(mix, tasks_of(sizes), seed, pools, any_task_of(sizes) if alone else None)
    for draw in draws[:count]:
        if draw.group in open_:
            assert resumed.repeat(draw.group, place_of(draw)) == draw
        else:
            resumed.skip(draw.group, place_of(draw))
    assert [resumed.draw(step + group) for group in range(count, count + 5)] == draws[count:]


def test_what_is_trained_is_not_made_again():
    """Of a hundred thousand drawn tasks, those are made that are needed."""
    made = []

    def tasks(name, stage):
        def make():
            for index in range(100):
                made.append(index)
                yield Task(f"{index}")

        return Tasks(make, "train")

    def task(index):
        made.append(index)
        if index >= 300:
            raise IndexError(index)
        return Task(f"{index}")

    alone = TaskSampler(environments(a=1), tasks, 0, None, lambda name, stage: task)
    in_order = TaskSampler(environments(a=1), tasks, 0)
    for sampler, index in ((alone, 99_999 % 300), (in_order, 99_999 % 100)):
        for group in range(99_999):
            sampler.skip(group, TaskPlace("a", -1, group))
        assert not made
        draw = sampler.draw(0)
        assert (draw.group, draw.index, draw.task.question) == (99_999, 99_999, str(index))
        assert len(made) <= 200  # the length is found by bisection, or in one pass; then there is one more
        made.clear()
    empty = TaskSampler(environments(a=1), tasks, 0, None, lambda name, stage: list[Task]().__getitem__)
    empty.skip(0, TaskPlace("a", -1, 0))
    with pytest.raises(ConfigError, match="a has no tasks"):
        empty.draw(0)


def test_the_journal_says_which_groups_are_open(tmp_path):
    sampler = TaskSampler(environments(a=1), tasks_of(), seed=0)
    path = tmp_path / "journal.jsonl"
    with Journal(tmp_path) as journal:
        for _ in range(5):
            journal.drawn(sampler.draw(0))
        journal.dropped(1, DropReason.ZERO_ADVANTAGE)
        journal.batch(1, [0, 3])
    with open(path, "a") as out:
        out.write('{"event":"batch","step":2,"gro')  # a crash
    history = read_journal(path)
    assert (history.open, history.dropped, history.batches) == ([2, 4], {1}, {1: [0, 3]})
    assert history.drawn[4] == TaskPlace("a", -1, 4)
    with Journal(tmp_path) as again:
        again.batch(2, [2, 4])
    assert read_journal(path).batches == {1: [0, 3], 2: [2, 4]}


@pytest.mark.parametrize(
    "damage",
    [
        "{}",
        '{"event":"drew","group":1}',
        '{"event":"drawn","group":1,"environment":"a","stage":-1,"index":"1"}',
        '{"event":"dropped","group":9,"reason":"failed"}',
        '{"event":"dropped","group":[0],"reason":"failed"}',
        '{"event":"batch","step":1,"groups":[0,1]}',
        '{"event":"batch","step":1,"groups":7}',
        '{"event":"batch","step":null,"groups":[0]}',
        '{"event":"scored","group":1,"reward":0.5}',
        '{"event":"scored","group":0,"reward":null}',
        "nonsense",
        "[]",
        "null",
        '{"event":' + 100_000 * "[",
    ],
    ids=lambda damage: damage[:60],
)
def test_a_damaged_line_of_the_journal_is_named(tmp_path, damage):
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"event":"drawn","group":0,"environment":"a","stage":-1,"index":0}}\n{damage}\n')
    with pytest.raises(ConfigError, match=r"journal\.jsonl, line 2 is damaged"):
        read_journal(path)
