"""Trees compute what samples begin with in common once, and give what flat packs and single samples give."""

from __future__ import annotations

import random
from itertools import pairwise, takewhile
from operator import eq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rlm_env.train.learner import tree_attention  # noqa: E402
from rlm_env.train.learner.config import LossConfig  # noqa: E402
from rlm_env.train.learner.forward import pack_logprobs  # noqa: E402
from rlm_env.train.learner.loss import policy_loss  # noqa: E402
from rlm_env.train.learner.packing import collate  # noqa: E402
from rlm_env.train.learner.packing_check import PackingError, can_share, check_packing  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from rlm_env.train.learner.tree import common_lengths, tree_order  # noqa: E402
from tests.train.learner.test_packing import HYBRID, make_model  # noqa: E402
from tests.train.plain_step import EXACT, Pipeline  # noqa: E402

WINDOWS = {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}


def make_sample(ids, draw=None, name="r", temperature=1.0):
    draw = draw or random.Random(0)
    mask = [False] + [draw.random() < 0.6 for _ in ids[1:]]
    mask[-1] = True
    logprobs = [-draw.random() if own else 0.0 for own in mask]
    return Sample(ids, mask, logprobs, name, temperature=temperature, advantage=draw.choice((-1.0, 0.5)))


@st.composite
def forests(draw):
    """Samples that begin anew, leave another one somewhere, go on where it ends, or are the same."""
    samples = []
    source = random.Random(draw(st.integers(0, 10**6)))
    for index in range(draw(st.integers(1, 8))):
        base = source.choice(samples).token_ids if samples and source.random() < 0.8 else []
        kept = base[: source.choice((0, 1, len(base) // 2, len(base)))]
        new = [source.randrange(97) for _ in range(source.choice((0, 1, 3, 12)))]
        ids = kept + new if len(kept + new) > 1 else [source.randrange(97) for _ in range(3)]
        samples.append(make_sample(ids, source, str(index), source.choice((0.7, 1.0))))
    return samples


@pytest.fixture(scope="module")
def exact_qwen3(make_qwen3):
    """Qwen3 whose norms keep float64: its own compute in float32, and round differently from layout to layout."""
    from transformers.models.qwen3 import modeling_qwen3

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_qwen3.Qwen3RMSNorm, "forward", forward)
        yield {kind: make_qwen3(torch.float64, **more) for kind, more in (("full", {}), ("windows", WINDOWS))}


def outcome(model, packs):
    """Log-probabilities and entropies of trained tokens by sample, the loss, and the gradient over all parameters."""
    model.zero_grad(set_to_none=True)
    logprobs, entropies, total = {}, {}, 0.0
    for pack in packs:
        found = pack_logprobs(model, pack, pack.temperatures)
        arguments = (pack.behavior_logprobs, pack.advantages, pack.mask, LossConfig(preset="gspo"), pack.sequence_ids)
        loss, _ = policy_loss(found.logprobs, *arguments)
        loss.backward()
        total += loss.detach()
        for index, sample in enumerate(pack.samples):
            own = (pack.sequence_ids == index) & pack.mask
            logprobs[sample.rollout_id], entropies[sample.rollout_id] = found.logprobs.detach()[own], found.entropy[own]
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    return [*(torch.cat([part[name] for name in sorted(part)]) for part in (logprobs, entropies)), total, gradient]


def distances(found, expected):
    return [((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(found, expected, strict=True)]


@settings(max_examples=25, deadline=None)
@given(samples=forests(), kind=st.sampled_from(["full", "windows"]), few=st.sampled_from([0, tree_attention.FEW]))
def test_a_tree_gives_what_flat_packs_and_single_samples_give(exact_qwen3, samples, kind, few):
    """In float64 to 1e-9: log-probabilities, entropies, loss and gradient; in blocks of many branches and of few."""
    model = exact_qwen3[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "FEW", few)
        tree = collate(tree_order(samples), as_tree=True)
        found = outcome(model, [tree])
    assert tree.computed <= sum(map(len, samples))
    for packs in ([collate(samples)], [collate([sample]) for sample in samples]):
        assert max(distances(found, outcome(model, packs))) < 1e-9


def test_in_float32_it_is_the_same_to_five_digits(make_qwen3):
    draw = random.Random(0)
    prompt = [draw.randrange(97) for _ in range(40)]
    samples = [make_sample(prompt + [draw.randrange(97) for _ in range(20)], draw, str(i)) for i in range(6)]
    found, expected = (outcome(make_qwen3(), [collate(samples, as_tree=tree)]) for tree in (True, False))
    assert max(distances(found, expected)) < 1e-5


@pytest.mark.parametrize("prompt", [0, 1, 50])
def test_a_common_prompt_is_computed_once_in_every_layer(make_qwen3, prompt):
    """Forward and backward: P + G S tokens, counted in each layer."""
    draw, group, own = random.Random(0), 5, 8
    common = [draw.randrange(97) for _ in range(prompt)]
    samples = [make_sample([*common, index, *(draw.randrange(97) for _ in range(own - 1))]) for index in range(group)]
    model, forward, backward = make_qwen3(), [], []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _, __, out: forward.append(out.shape[1]))
        layer.register_full_backward_hook(lambda _, __, grads: backward.append(grads[0].shape[1]))
    pack = collate(samples, as_tree=True)
    pack_logprobs(model, pack).logprobs.sum().backward()
    assert forward == backward == [prompt + group * own] * len(model.model.layers)
    assert pack.computed == prompt + group * own
    assert len(pack) == group * (prompt + own)


def test_a_token_that_several_samples_train_is_predicted_once_and_has_each_ones_loss(make_qwen3, monkeypatch):
    ids = [5, 6, 7, 8]
    samples = [make_sample(ids, name=str(index)) for index in range(3)]
    for sample, mask in zip(samples, ([0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]), strict=True):
        sample.mask = [bool(own) for own in mask]
    pack = collate(samples, as_tree=True)
    assert pack.computed == 4
    assert pack.tree.targets.tolist() == [1, 2, 3]
    assert pack.input_ids[0, pack.tree.targets].tolist() == [6, 7, 8]
    assert pack.tree.targets[pack.tree.predicted].tolist() == [2, 3, 1, 2, 3]
    found = pack_logprobs(make_qwen3(), pack).logprobs
    assert torch.allclose(found, pack_logprobs(make_qwen3(), collate(samples)).logprobs, atol=1e-6)
    samples[2].temperature = 0.5  # another distribution: predicted once more
    assert collate(samples, as_tree=True).tree.targets.tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("ids", "shared", "computed"),
    [
        ([[1, 2, 3], [1, 2, 3]], [0, 3], 3),  # the same
        ([[1, 2], [1, 2, 3, 4]], [0, 2], 4),  # one goes on where the other ends
        ([[1, 2, 3], [4, 5]], [0, 0], 5),  # nothing in common
        ([[1, 2, 3], [1, 2, 4], [1, 5], [1, 5, 6]], [0, 2, 1, 2], 6),  # forks of forks
        ([[9, 2, 3], [1, 2, 3]], [0, 0], 6),  # equal ids after other ones are not shared
    ],
)
def test_what_is_shared(ids, shared, computed):
    samples = tree_order([make_sample(row) for row in ids])
    assert common_lengths(samples) == shared
    pack = collate(samples, as_tree=True)
    assert pack.computed == computed
    assert [pack.input_ids[0, place].tolist() for place in pack.tree.places.split([*map(len, samples)])] == [
        sample.token_ids for sample in samples
    ]
    assert pack.position_ids[0, pack.tree.places].tolist() == [at for s in samples for at in range(len(s))]


@given(forests())
def test_common_lengths_are_those_of_a_token_by_token_comparison(samples):
    ids = [[], *(sample.token_ids for sample in samples)]
    expected = [sum(takewhile(bool, map(eq, before, own))) for before, own in pairwise(ids)]
    assert common_lengths(samples) == expected


def test_a_step_of_trees_is_the_plain_one(plain_step, monkeypatch):
    """Against every reply run by itself: turns that continue, histories that were rewritten, sub-calls."""
    monkeypatch.setattr(Pipeline, "as_trees", True)
    assert plain_step.error() < EXACT


def test_the_check_accepts_trees_and_refuses_models_whose_state_leaks(make_qwen3):
    check = check_packing(make_qwen3(), as_tree=True)
    assert check.leak == 0
    assert max(check.logprobs, check.gradients) < 1e-5
    assert can_share(make_qwen3(), "auto", 1e-5)
    hybrid = make_model("Qwen3_5Text", **HYBRID)
    assert not can_share(hybrid, "auto", 1e-5)
    with pytest.raises(PackingError, match=r"trees of samples.*trainer\.packing = \"auto\""):
        can_share(hybrid, "tree", 1e-5)


def test_the_check_finds_branches_that_see_each_other(make_qwen3, monkeypatch):
    mask = tree_attention._mask

    def careless(*arguments):
        found = mask(*arguments)
        return None if found is None else found | True

    monkeypatch.setattr(tree_attention, "_mask", careless)
    with pytest.raises(PackingError, match="affected by tokens that are not its own"):
        check_packing(make_qwen3(), as_tree=True)


def test_attention_of_others_is_refused(make_qwen3):
    samples = [make_sample([1, 2, 3])]
    with pytest.raises(ValueError, match="'sdpa' knows no trees"):
        pack_logprobs(make_qwen3(attn_implementation="sdpa"), collate(samples, as_tree=True))
