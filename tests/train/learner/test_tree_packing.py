"""Packs for trees: cut out of the samples in tree order, within the budget, few and of equal cost."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from pydantic import ValidationError  # noqa: E402

from rlm_env.train.learner.config import ModelConfig  # noqa: E402
from rlm_env.train.learner.packing import collate  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from rlm_env.train.learner.tree import common_lengths  # noqa: E402
from rlm_env.train.learner.tree_packing import (  # noqa: E402
    KEYS,
    PAYS,
    _Keys,
    may_be_trees,
    shared_ratio,
    takes_trees,
    tree_packs,
)


def make_sample(ids, name="r"):
    return Sample(ids, [False] + [True] * (len(ids) - 1), [0.0] * len(ids), name)


def cost(sample, shared):
    return len(sample) - shared + (len(sample) ** 2 - shared**2) / 100


def computed(pack):
    return collate(pack, as_tree=True).computed


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=12), min_size=1, max_size=30),
    processes=st.integers(1, 4),
)
def test_every_sample_is_in_one_pack_within_the_budget(rows, processes):
    samples = [make_sample(ids, str(index)) for index, ids in enumerate(rows)]
    packs = tree_packs(samples, 20, processes, cost)
    assert sorted(s.rollout_id for pack in packs for s in pack) == sorted(s.rollout_id for s in samples)
    assert all(computed(pack) <= 20 for pack in packs)
    one_after_the_other = tree_packs(samples, 20, 1, cost)
    assert -(-len(packs) // processes) == -(-len(one_after_the_other) // processes)
    assert packs == tree_packs(samples, 20, processes, cost)


def test_a_prompt_is_repeated_once_for_each_pack():
    prompt = list(range(30))
    samples = [make_sample([*prompt, 100 + index] + [7] * 9) for index in range(12)]
    packs = tree_packs(samples, 30 + 4 * 10, 1, cost)
    assert [len(pack) for pack in packs] == [4, 4, 4]
    assert [computed(pack) for pack in packs] == [70, 70, 70]
    assert shared_ratio(samples) == pytest.approx(12 * 40 / (30 + 12 * 10))


def test_processes_get_packs_of_equal_cost():
    samples = [make_sample([index] * (5 + 3 * index)) for index in range(12)]
    packs = tree_packs(samples, 60, 4, cost)
    costs = [sum(cost(sample, 0) for sample in pack) for pack in packs]
    assert len(packs) == 8
    assert costs == sorted(costs, reverse=True)
    assert max(costs) < 1.3 * sum(costs) / len(costs)


def test_many_short_samples_after_a_long_prompt_do_not_hold_its_keys_without_bound():
    prompt = list(range(90))
    samples = [make_sample([*prompt, 100 + index, 7]) for index in range(40)]
    packs = tree_packs(samples, 200, 1, cost, on_card=True)
    assert max(len(pack) for pack in packs) <= 1 + KEYS * 200 // 92
    assert len(packs) == 5


@pytest.mark.parametrize(("group", "prompt", "own"), [(8, 1000, 100), (64, 2000, 50), (200, 4000, 10), (500, 500, 4)])
def test_on_a_cpu_a_prompt_is_computed_once_for_all_that_fit(group, prompt, own):
    chance = random.Random(0)
    begin = [chance.randrange(1000) for _ in range(prompt)]
    samples = [make_sample(begin + [chance.randrange(1000) for _ in range(own)], str(i)) for i in range(group)]
    whole = prompt + group * own
    for budget in (whole, 16_384):
        (pack,) = tree_packs(samples, budget, 1, cost)
        assert computed(pack) <= whole


@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=40), min_size=1, max_size=25))
def test_keys_are_counted_as_attention_holds_them(rows):
    (pack,) = tree_packs([make_sample(ids, str(index)) for index, ids in enumerate(rows)], 10_000, 1, cost)
    tree = collate(pack, as_tree=True).tree
    held = sum(tree.branches.pieces[piece] for block in tree.branches.blocks for piece in block.pieces)
    keys = _Keys(on_card=False)
    for sample, common in zip(pack, common_lengths(pack), strict=True):
        expected = keys.with_branch(len(sample), common)
        keys.add(len(sample), common)
        assert keys.with_branch(1, 1) == expected
    assert expected == held


def test_a_sample_over_the_budget_is_named():
    with pytest.raises(ValueError, match=r"rollout 'long' has 21 tokens.*trainer\.pack_tokens"):
        tree_packs([make_sample([1] * 21, "long")], 20, 1, cost)


def test_auto_takes_trees_where_they_pay_and_have_been_measured():
    auto, tree, flat = ModelConfig(), ModelConfig(packing="tree"), ModelConfig(packing=True)
    assert [may_be_trees(config, "cpu") for config in (auto, tree, flat)] == [True, True, False]
    assert [may_be_trees(config, "cuda") for config in (auto, tree, flat)] == [False, True, False]
    assert not may_be_trees(ModelConfig(attention="sdpa"), "cpu")
    prompt = [1] * 20
    alike = [make_sample([*prompt, index, index]) for index in range(2, 6)]
    apart = [make_sample([index] * 22) for index in range(4)]
    assert shared_ratio(alike) > PAYS > shared_ratio(apart) == shared_ratio([]) == 1
    assert [takes_trees(auto, samples) for samples in (alike, apart)] == [True, False]
    assert takes_trees(tree, apart)


def test_an_attention_that_knows_no_trees_is_refused():
    with pytest.raises(ValidationError, match=r'packing = "tree" needs attention = "auto"'):
        ModelConfig(packing="tree", attention="sdpa")
