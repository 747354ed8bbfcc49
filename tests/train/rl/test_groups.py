"""Groups and batches: rewards, costs, advantages on samples, and what the metrics of a batch say."""

import pytest

from rlm_env.messages import Usage
from rlm_env.rollout import GroupMember, Rollout, Score, StopReason, SubCall, Turn
from rlm_env.runs.options import OF_METRICS
from rlm_env.train.rl.batch_metrics import batch_metrics
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.groups import Batch, DropReason, RolloutGroup


def rollout(score=None, calls=0, stop=StopReason.READY, version=0, environment="a"):
    subs = [
        SubCall(index, 0, 0, [], prompt_ids=[7], completion_ids=[8, 9], logprobs=[-0.1, -0.2]) for index in range(calls)
    ]
    return Rollout(
        id=f"{score}-{calls}",
        stop_reason=stop if score is not None else StopReason.ERROR,
        turns=[Turn(prompt_ids=[1], completion_ids=[2], logprobs=[-0.5])],
        sub_calls=subs,
        root_usage=Usage(10, 5),
        sub_usage=Usage(3 * calls, 2 * calls),
        score=None if score is None else Score(score),
        group=GroupMember(environment, policy_version=version),
    )


def config(**parts) -> TrainConfig:
    return TrainConfig.model_validate({"model": "m", "out": "o", "environments": [{"name": "a"}], **parts})


def test_one_advantage_goes_to_all_samples_of_a_rollout():
    group = RolloutGroup(0, "a", config(), [rollout(1.0, calls=2), rollout(0.0), rollout(None, calls=3)])
    samples = Batch(1, [group]).samples()
    assert [(sample.kind, sample.advantage) for sample in samples] == [
        ("root", 0.5),
        ("sub", 0.5),
        ("sub", 0.5),
        ("root", -0.5),
    ]


def test_groups_do_not_share_a_baseline():
    groups = [
        RolloutGroup(0, "a", config(), [rollout(1.0), rollout(0.0)]),
        RolloutGroup(1, "a", config(), [rollout(0.1), rollout(0.0)]),
    ]
    advantages = [sample.advantage for sample in Batch(1, groups).samples()]
    assert advantages == pytest.approx([0.5, -0.5, 0.05, -0.05])


@pytest.mark.parametrize(
    ("unfinished", "rewards"),
    [("score", [1.0, 0.5, None]), ("zero", [1.0, 0.0, None]), ("drop", [1.0, None, None])],
)
def test_what_an_unfinished_rollout_is_worth(unfinished, rewards):
    rollouts = [rollout(1.0), rollout(0.5, stop=StopReason.MAX_TURNS), rollout(None)]
    group = RolloutGroup(0, "a", config(groups={"unfinished": unfinished}), rollouts)
    assert group.rewards == rewards
    assert rollouts[1].score.value == 0.5
    samples = Batch(1, [group]).samples()
    assert len(samples) == sum(reward is not None for reward in rewards)


def test_a_cost_makes_the_cheaper_of_two_equal_rollouts_better():
    def advantages(settings: TrainConfig) -> dict[str, float]:
        group = RolloutGroup(0, "a", settings, [rollout(1.0, calls=10), rollout(1.0, calls=2), rollout(0.0)])
        return {sample.rollout_id: sample.advantage for sample in Batch(1, [group]).samples()}

    free = advantages(config())
    assert free["1.0-10"] == free["1.0-2"]
    for unit in ("sub_calls", "tokens"):
        costly = advantages(config(advantage={"cost_weight": 0.3}, groups={"cost": unit}))
        assert costly["1.0-2"] > costly["1.0-10"] > costly["0.0-0"]


def test_a_group_that_is_solved_by_all_teaches_what_costs_less():
    rollouts = [rollout(1.0, calls=10), rollout(1.0, calls=2)]
    penalty = config(advantage={"cost_weight": 0.3})
    assert RolloutGroup(0, "a", config(), rollouts).is_zero_advantage
    assert not RolloutGroup(0, "a", penalty, rollouts).is_zero_advantage
    assert RolloutGroup(0, "a", penalty, rollouts[:1] * 2).is_zero_advantage
    assert RolloutGroup(0, "a", penalty, [*rollouts[:1], rollout(None)]).is_zero_advantage


def test_a_small_difference_in_cost_is_no_advantage():
    """All of eight solved it, and one took 18 sub-calls instead of 17."""
    rollouts = [rollout(1.0, calls=17) for _ in range(7)] + [rollout(1.0, calls=18)]
    group = RolloutGroup(0, "a", config(advantage={"cost_weight": 0.1}), rollouts)
    assert 0 < max(map(abs, group.advantages)) < 0.01
    assert group.is_zero_advantage
    strict = config(advantage={"cost_weight": 0.1}, groups={"min_advantage": 0})
    assert not RolloutGroup(0, "a", strict, rollouts).is_zero_advantage
    assert not RolloutGroup(0, "a", config(), [*rollouts, rollout(0.0)]).is_zero_advantage
    with pytest.raises(ValueError, match=r'cost_weight does not go with advantage\.mode = "grpo_std"'):
        config(advantage={"cost_weight": 0.1, "mode": "grpo_std"})


def test_a_group_of_equal_scores_differs_in_cost_alone():
    solved = [rollout(1.0, calls=calls) for calls in (10, 12, 14)]
    penalty = config(advantage={"cost_weight": 0.1})
    assert RolloutGroup(0, "a", penalty, solved).differs_in_cost_alone
    assert not RolloutGroup(0, "a", config(), solved).differs_in_cost_alone
    assert not RolloutGroup(0, "a", penalty, [*solved, rollout(0.0)]).differs_in_cost_alone
    assert not RolloutGroup(0, "a", penalty, solved[:1] * 3).differs_in_cost_alone  # it has no advantage at all
    assert not RolloutGroup(0, "a", penalty, [rollout(None)]).differs_in_cost_alone
    batch = Batch(1, [RolloutGroup(0, "a", penalty, group) for group in (solved, [*solved, rollout(0.0)])])
    assert batch_metrics(batch, batch.samples())["groups/cost_alone"] == 0.5


def test_metrics_of_a_batch():
    three = config(groups={"size": 3})
    groups = [
        RolloutGroup(
            4, "a", three, [rollout(1.0, calls=4), rollout(0.0, stop=StopReason.MAX_TURNS, version=2), rollout(None)]
        ),
        RolloutGroup(6, "b", three, [rollout(0.5), rollout(0.5, version=2), rollout(0.5)]),
    ]
    batch = Batch(4, groups)
    slow = RolloutGroup(2, "a", config(), [rollout(1.0, calls=1), rollout(1.0, calls=2)])
    batch.dropped[DropReason.ZERO_ADVANTAGE].append(slow)
    batch.dropped[DropReason.FAILED].append(RolloutGroup(3, "a", config(), [rollout(None), rollout(None)]))
    metrics = batch_metrics(batch, batch.samples())
    expected = {
        "reward/mean": 0.5,
        "reward/a": 0.5,
        "reward/b": 0.5,
        "score/mean": 0.5,
        "pass@1": 0.25,
        "pass@3": 0.0,
        "groups/dropped_zero_advantage": 0.25,
        "groups/dropped_off_policy": 0.0,
        "groups/dropped_failed": 0.25,
        "groups/zero_advantage": 0.5,
        "dropped_zero_advantage/reward": 1.0,
        "dropped_zero_advantage/tokens": 8.0,
        "rollouts/failed": 1 / 6,
        "rollouts/truncated": 0.2,
        "off_policy_steps/max": 3.0,
        "off_policy_steps/mean": (3 + 1 + 3 + 1 + 3) / 5,
        "sub_calls/mean": 0.8,
        "sub_calls/solved": 4.0,
        "tokens/root": 5.0,
        "tokens/sub": 8.0,
        "tokens/sub_share": 8 / 13,
        "samples/root": 5.0,
        "samples/sub": 4.0,
        "tokens/sampled": 25.0 + 8.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert "dropped_failed/reward" not in metrics
    assert sorted(name for name in metrics if name.startswith("pass@")) == ["pass@1", "pass@3"]


def test_pass_at_size_is_of_whole_groups_and_keeps_its_name():
    """One rollout that failed must not make it a metric of another name, nor one of fewer rollouts."""
    four = config(groups={"size": 4})
    solved = RolloutGroup(0, "a", four, [rollout(float(member == 0)) for member in range(4)])
    short = RolloutGroup(1, "a", four, [rollout(0.0), rollout(0.0), rollout(0.0), rollout(None)])
    for groups, expected in (
        ([solved, short], {"pass@1": 0.125, "pass@4": 1.0}),
        ([short], {"pass@1": 0.0}),
        ([solved], {"pass@1": 0.25, "pass@4": 1.0}),
    ):
        metrics = batch_metrics(Batch(1, groups), [])
        assert {name: value for name, value in metrics.items() if name.startswith("pass@")} == expected


def test_no_label_can_be_the_name_of_a_metric():
    """Whatever else is named like the metrics of an environment is no label."""
    groups = [
        RolloutGroup(n, label, config(), [rollout(1.0, calls=1, environment=label), rollout(0.0, environment=label)])
        for n, label in enumerate("xy")
    ]
    batch = Batch(1, groups)
    names = [name.rpartition("/") for name in batch_metrics(batch, batch.samples())]
    with_label = {space for space, _, last in names if last in ("x", "y")}
    assert with_label == {"reward", "turns", "tokens/per_rollout"}
    assert {last for space, _, last in names if space in with_label} - {"x", "y"} == OF_METRICS


def test_what_a_group_s_time_limit_cut_off_is_told():
    """Three of four and two of four members had ended: the rest is not trained, and slow ones are the rest."""
    values = config(groups={"size": 4})
    groups = [
        RolloutGroup(1, "a", values, [rollout(1.0), rollout(0.0), rollout(None)]),
        RolloutGroup(2, "a", values, [rollout(1.0), rollout(0.0)]),
    ]
    batch = Batch(1, groups)
    assert batch_metrics(batch, batch.samples())["rollouts/cut_off"] == pytest.approx(3 / 8)
