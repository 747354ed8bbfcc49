"""Attention by sample equals a dense mask over the pack, in value and gradient, and refuses what it would get wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from rlm_env.train.learner import attention  # noqa: E402
from rlm_env.train.learner.attention import AttentionError, Boundaries, by_sample  # noqa: E402
from rlm_env.train.learner.config import ModelConfig  # noqa: E402
from rlm_env.train.learner.model import load_model  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def make(lengths, heads=4, key_heads=2, width=8, dtype=torch.float64, device="cpu", value_width=None):
    generator = torch.Generator().manual_seed(sum(lengths))
    shapes = ((heads, width), (key_heads, width), (key_heads, value_width or width))
    return [
        torch.randn(1, count, sum(lengths), size, generator=generator, dtype=torch.float64)
        .to(device, dtype)
        .requires_grad_()
        for count, size in shapes
    ]


def masked(q, k, v, lengths, window=None, scale=None):
    """The same with one mask over the pack, the way to be equal to."""
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(q.device)
    place = torch.arange(sum(lengths), device=q.device)
    back = place[:, None] - place[None, :]
    mask = (ids[:, None] == ids[None, :]) & (back >= 0) & (back < (window or len(place)))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True, scale=scale).transpose(1, 2)


def differences(found, expected, tensors):
    up = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(expected)
    grads = [torch.autograd.grad(out, tensors, up.to(out.dtype), retain_graph=True) for out in (found, expected)]
    pairs = [(found.detach(), expected.detach()), *zip(*grads, strict=True)]
    return [((a.double() - b.double()).norm() / max(1.0, b.double().norm().item())).item() for a, b in pairs]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    window=st.none() | st.integers(1, 12),
    scale=st.none() | st.just(0.3),
)
def test_it_is_the_dense_mask(lengths, window, scale):
    tensors = make(lengths)
    found, weights = by_sample(
        torch.nn.Module(), *tensors, None, scale, sliding_window=window, boundaries=Boundaries.of(lengths)
    )
    assert weights is None
    assert max(differences(found, masked(*tensors, lengths, window, scale), tensors)) < 1e-12


def test_values_may_be_narrower_than_keys():
    tensors = make([5, 3], value_width=4)
    found, _ = by_sample(torch.nn.Module(), *tensors, None, boundaries=Boundaries.of([5, 3]))
    assert max(differences(found, masked(*tensors, [5, 3]), tensors)) < 1e-12


def test_without_boundaries_the_sequence_is_one_sample():
    tensors = make([7])
    found, _ = by_sample(torch.nn.Module(), *tensors, None)
    assert max(differences(found, masked(*tensors, [7]), tensors)) < 1e-12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"softcap": 50.0}, "caps attention logits"),
        ({"s_aux": torch.zeros(4)}, "attention sinks"),
        ({"dropout": 0.1}, "dropout"),
        ({"attention_mask": torch.ones(1, 1, 8, 8)}, "mask"),
        ({"boundaries": Boundaries.of([5, 4])}, "not one pack of 9 tokens"),
    ],
)
def test_what_it_would_get_wrong_is_refused(options, words):
    given = {"attention_mask": None, "boundaries": Boundaries.of([5, 3])} | options
    with pytest.raises(AttentionError, match=words):
        by_sample(torch.nn.Module(), *make([5, 3]), **given)


@needs_cuda
@pytest.mark.parametrize("lengths", [[5], [300, 64, 17, 5, 1], [4000, 2100, 130, 64, 3], [2500, 2048]])
@pytest.mark.parametrize("window", [None, 100])
def test_on_a_card_both_kernels_are_the_dense_mask(lengths, window):
    tensors = make(lengths, heads=8, key_heads=2, width=64, dtype=torch.bfloat16, device="cuda")
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    found, _ = by_sample(
        torch.nn.Module(), *tensors, None, sliding_window=window, boundaries=Boundaries.of(lengths).to("cuda")
    )
    up = torch.randn(found.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    expected = masked(*exact, lengths, window)
    pairs = [(found, expected)]
    pairs += zip(
        torch.autograd.grad(found, tensors, up.bfloat16()), torch.autograd.grad(expected, exact, up), strict=True
    )
    assert max(((a.float() - b).norm() / b.norm()).item() for a, b in pairs) < 0.02


@needs_cuda
def test_in_float32_a_card_computes_what_the_cpu_does():
    lengths = [130, 64, 3]
    tensors = make(lengths, dtype=torch.float32, device="cuda")
    found, _ = by_sample(torch.nn.Module(), *tensors, None, boundaries=Boundaries.of(lengths).to("cuda"))
    expected = masked(*make(lengths), lengths)
    assert ((found.cpu().double() - expected).norm() / expected.norm()).item() < 1e-5


def test_padding_is_refused(make_qwen3, tmp_path):
    """By any model that the learner loads: nothing else would notice it."""
    make_qwen3().save_pretrained(tmp_path)
    model = load_model(tmp_path, ModelConfig(dtype="float32", device="cpu"))
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids).logits, make_qwen3()(ids).logits)
    with pytest.raises(AttentionError, match="no padding"):
        model(ids, attention_mask=torch.tensor([[0, 1, 1]]))


def test_registering_twice_is_once():
    attention.register()
    attention.register()
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    assert ALL_ATTENTION_FUNCTIONS[attention.BY_SAMPLE] is by_sample
