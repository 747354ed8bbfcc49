"""Advantages: every formula by hand, and what must hold for all of them."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlm_env.train.learner.samples import rollout_samples
from rlm_env.train.rl.advantage import AdvantageConfig, group_advantages, penalized

MODES = ["grpo", "grpo_std", "rloo", "max_rl", "dr_grpo"]
rewards_of_a_group = st.lists(st.floats(0, 1) | st.none(), max_size=12)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("grpo", [0.75, -0.25, -0.25, -0.25]),
        ("dr_grpo", [0.75, -0.25, -0.25, -0.25]),
        ("grpo_std", [0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001]),
        ("rloo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("max_rl", [3.0, -1.0, -1.0, -1.0]),
    ],
)
def test_the_formulas(mode, expected):
    assert group_advantages([1.0, 0.0, 0.0, 0.0], AdvantageConfig(mode=mode)) == pytest.approx(expected)


def test_the_rounding_of_a_reward_is_next_to_no_advantage():
    advantages = group_advantages([1 / 3] * 7 + [1 / 3 + 1e-9], AdvantageConfig(mode="grpo_std"))
    assert max(map(abs, advantages)) < 1e-4


def test_the_default_is_grpo_without_std():
    assert group_advantages([1.0, 0.5, 0.0]) == [0.5, 0.0, -0.5]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rewards", [[], [0.7], [None], [0.7, None], [None, None], [0.1] * 3, [1.0] * 7, [0.0] * 2])
def test_no_comparison_is_exactly_zero(mode, rewards):
    assert group_advantages(rewards, AdvantageConfig(mode=mode)) == [0.0] * len(rewards)


@given(rewards_of_a_group, st.sampled_from(MODES), st.data())
def test_failed_rollouts_are_outside_mean_and_count(rewards, mode, data):
    config = AdvantageConfig(mode=mode)
    advantages = group_advantages(rewards, config)
    assert all(a == 0 for a, r in zip(advantages, rewards, strict=True) if r is None)
    scored = [a for a, r in zip(advantages, rewards, strict=True) if r is not None]
    assert scored == group_advantages([r for r in rewards if r is not None], config)


@given(rewards_of_a_group, st.sampled_from(MODES))
def test_advantages_sum_to_zero_and_keep_the_order(rewards, mode):
    scored = [r for r in rewards if r is not None]
    assume(not scored or max(scored) == min(scored) or max(scored) - min(scored) > 1e-6)
    advantages = [
        a for a, r in zip(group_advantages(rewards, AdvantageConfig(mode=mode)), rewards, strict=True) if r is not None
    ]
    assert math.fsum(advantages) == pytest.approx(0, abs=1e-9 * (1 + max(map(abs, advantages), default=0)))
    for reward, advantage in zip(scored, advantages, strict=True):
        for other, others in zip(scored, advantages, strict=True):
            assert (reward > other) <= (advantage >= others)


def test_cost_only_counts_among_successes_and_a_success_stays_above_a_failure():
    config = AdvantageConfig(cost_weight=0.5)
    cheap, costly, failure, cheap_failure = group_advantages([1.0, 1.0, 0.0, 0.0], config, [10, 100, 100, 1])
    assert cheap > costly > failure == cheap_failure


def test_cost_is_relative_to_the_largest():
    assert penalized([1.0, 1.0, 0.5], [50, 100, 100], 0.4) == pytest.approx([1.0, 0.8, 0.4])
    assert penalized([1.0, 1.0], [0, 0], 0.4) == [1.0, 1.0]
    assert penalized([1.0, 1.0], [1000, 1001], 0.5)[1] > 0.999  # a small difference is not blown up


def test_equal_scores_at_unequal_cost_give_a_signal_only_with_a_cost_weight():
    assert group_advantages([1.0, 1.0], AdvantageConfig(), [1, 100]) == [0.0, 0.0]
    cheap, costly = group_advantages([1.0, 1.0], AdvantageConfig(cost_weight=0.1), [1, 100])
    assert cheap > 0 > costly
    assert group_advantages([1.0, 1.0], AdvantageConfig(cost_weight=0.1), [7, 7]) == [0.0, 0.0]


def test_costs_of_failed_rollouts_do_not_matter():
    config = AdvantageConfig(cost_weight=0.5)
    assert group_advantages([1.0, 0.5, None], config, [1, 2, None])[:2] == group_advantages([1.0, 0.5], config, [1, 2])


@pytest.mark.parametrize(
    ("rewards", "settings", "costs", "message"),
    [
        ([1.0, math.nan], {}, None, "finite"),
        ([1.0, math.inf], {}, None, "finite"),
        ([1.0, 0.0], {"cost_weight": 0.1}, None, "2 rewards, no costs"),
        ([1.0, 0.0], {"cost_weight": 0.1}, [1.0], "2 rewards, 1 costs"),
        ([1.0, 0.0], {"cost_weight": 0.1}, [1.0, None], "costs of scored rollouts"),
        ([1.0, 0.0], {"cost_weight": 0.1}, [1.0, -1.0], "costs of scored rollouts"),
        ([1.0, -0.5], {"cost_weight": 0.1}, [1.0, 1.0], "rewards of at least 0"),
        ([1.0, -0.5], {"mode": "max_rl"}, None, "rewards of at least 0"),
    ],
)
def test_bad_numbers_are_refused(rewards, settings, costs, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, AdvantageConfig(**settings), costs)


def advantages_across_groups(patch):
    from tests.train.plain_step import Pipeline

    original = Pipeline.advantages
    patch.setattr(Pipeline, "advantages", lambda self, groups: original(self, [[r for g in groups for r in g]]))


def baseline_over_samples(patch):
    """Root and sub samples of a group in one baseline, so that rollouts count by how many samples they have."""
    from tests.train.plain_step import Pipeline

    def over_samples(self, groups):
        found = {}
        for group in groups:
            names = [sample.rollout_id for rollout in group for sample in rollout_samples(rollout)]
            reward = {rollout.id: rollout.score.value for rollout in group}
            values = group_advantages([reward[name] for name in names])
            found |= dict(zip(names, values, strict=True))
        return found

    patch.setattr(Pipeline, "advantages", over_samples)


@pytest.mark.parametrize("bug", [advantages_across_groups, baseline_over_samples], ids=lambda bug: bug.__name__)
def test_a_classic_bug_is_seen(bug, plain_step):
    plain_step.assert_seen(bug)
