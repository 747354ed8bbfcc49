"""The optimizer: its schedule, decay groups, clipping, and float32 masters under a narrower forward."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rlm_env.train.learner.config import OptimizerConfig  # noqa: E402
from rlm_env.train.learner.optimizer import Optimizer, decayed_names, learning_rate, split_masters  # noqa: E402


def test_the_schedule_by_hand():
    def rates(schedule, total=6, **settings):
        config = OptimizerConfig(lr=1.0, schedule=schedule, **settings)
        return [round(learning_rate(config, step, total), 6) for step in range(total)]

    assert rates("constant") == [1] * 6
    assert rates("constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates("linear") == [1, 0.8, 0.6, 0.4, 0.2, 0]
    assert rates("linear", warmup_steps=2, final_fraction=0.1) == [0.5, 1, 1, 0.7, 0.4, 0.1]
    assert rates("cosine", total=5, final_fraction=0.2) == [1, round(0.6 + 0.4 * 0.5**0.5, 6), 0.6, 0.317157, 0.2]


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.integers(0, 20),
    st.integers(1, 20),
    st.integers(0, 60),
    st.floats(0, 1),
)
def test_the_rate_is_never_negative_nor_above_lr(schedule, warmup, total, step, final):
    config = OptimizerConfig(lr=1e-3, schedule=schedule, warmup_steps=warmup, final_fraction=final)
    rate = learning_rate(config, step, total)
    assert 0 <= rate <= 1e-3 * (1 + 1e-12)
    if step >= warmup:
        assert rate >= 1e-3 * (final if schedule != "constant" else 1) * (1 - 1e-12)


def test_norms_biases_and_embeddings_do_not_decay(make_qwen3):
    tied = make_qwen3(tie_word_embeddings=True, attention_bias=True)
    assert not any("embed" in n or "norm" in n or "bias" in n or "head" in n for n in decayed_names(tied))
    free = make_qwen3(tie_word_embeddings=False)
    matrices = {n for n, p in free.named_parameters() if p.ndim == 2} - {"model.embed_tokens.weight"}
    assert decayed_names(free) == matrices
    assert "lm_head.weight" in matrices


def linear(value, dtype=torch.float32, **settings):
    """One weight and its optimizer."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, value)
    masters = split_masters(module, dtype)
    return module, Optimizer(module, masters, OptimizerConfig(**settings), 1000)


def test_decay_is_applied_to_matrices_alone(make_qwen3):
    model = make_qwen3()
    found = Optimizer(model, split_masters(model, torch.float32), OptimizerConfig(lr=0.1, weight_decay=0.5), 1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    found.step(0)  # with gradients of 0: what is left is decay
    for name, parameter in model.named_parameters():
        factor = 0.95 if name in decayed_names(model) else 1.0
        assert torch.allclose(parameter, before[name] * factor, rtol=1e-6, atol=0)


def test_gradients_are_clipped_by_their_global_norm(make_qwen3):
    def step(scale, limit):
        model = make_qwen3()
        config = OptimizerConfig(lr=1e-3, eps=1.0, max_grad_norm=limit)  # eps = 1 lets the size of a gradient matter
        found = Optimizer(model, split_masters(model, torch.float32), config, 1)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
        update = found.step(0)
        return update, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    update, free = step(1.0, None)
    assert torch.equal(step(1.0, 2 * update.grad_norm)[1], free)
    clipped, weights = step(1.0, update.grad_norm / 4)
    assert clipped.grad_norm == update.grad_norm  # reported before clipping
    assert torch.allclose(weights, step(0.25, None)[1], atol=1e-7)
    assert not torch.allclose(weights, free, atol=1e-5)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(broken):
    module, found = linear(1.0, lr=0.1)
    module.weight.grad = torch.full((1, 1), 0.5)
    assert found.step(0).applied
    before = {name: value.clone() for name, value in found.state().items()}
    module.weight.grad = torch.full((1, 1), broken)
    update = found.step(1)
    assert not update.applied
    assert module.weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in found.state().items())


def test_tiny_updates_add_up_under_a_bfloat16_forward():
    # Each moves the weight by one part in 10,000, far below the 1 in 256 that bfloat16 resolves at 1.
    module, found = linear(1.0, torch.bfloat16, lr=1e-4, eps=1e-12)
    assert module.weight.dtype == torch.bfloat16
    for step in range(200):
        module(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        assert module.weight.grad is None
        found.step(step)
        assert step or module.weight.item() == 1.0
    assert found.masters["weight"].item() == pytest.approx(0.98, abs=1e-5)
    assert module.weight.item() == pytest.approx(0.98, abs=2**-8)

    lost = torch.nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)  # what would happen without
    torch.nn.init.constant_(lost.weight, 1.0)
    adam = torch.optim.AdamW(lost.parameters(), lr=1e-4, eps=1e-12, weight_decay=0)
    for _ in range(200):
        adam.zero_grad()
        lost(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        adam.step()
    assert lost.weight.item() == 1.0


def test_gradients_of_several_backwards_are_summed_in_float32():
    module, found = linear(1.0, torch.bfloat16)
    for value in [256.0] + [0.5] * 64:  # in bfloat16 256 + 0.5 is 256
        module(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
    assert found.masters["weight"].grad.item() == 288


def test_masters_are_the_parameters_where_the_forward_is_in_float32():
    module, found = linear(1.0)
    assert found.masters["weight"] is module.weight
    module, found = linear(1 / 3, torch.bfloat16)
    assert found.masters["weight"].item() == pytest.approx(1 / 3, rel=1e-7)  # not what bfloat16 made of it
    assert module.weight.item() != found.masters["weight"].item()
