"""Attention and the vocabulary head alone, beside the alternatives: the stages `attention` and `head` of `gpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from gpu_shapes import SHAPES, rlm_lengths
from torch import Tensor

from rlm_env.train.learner import attention as ours
from rlm_env.train.learner.attention import Boundaries, by_sample
from rlm_env.train.learner.logprobs import token_logprobs

if TYPE_CHECKING:
    from gpu import Bench


def attention(bench: Bench) -> None:
    """Forward and backward of one layer's attention over a pack, with lengths of RLM rollouts and of one sample."""
    real = bench.shapes == "real"
    shape = SHAPES["4B" if real else "tiny"]
    heads, key_heads, width = shape["num_attention_heads"], shape["num_key_value_heads"], shape["head_dim"]
    for tokens in (16_384, 32_768) if real else (256,):
        for kind in ("rlm", "one sample", "eight samples"):
            lengths = {
                "rlm": sorted(rlm_lengths(tokens, tiny=not real), reverse=True),
                "one sample": [tokens],
                "eight samples": [tokens // 8] * 8,
            }[kind]
            q, k, v = (
                torch.randn(1, count, tokens, width, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
                for count in (heads, key_heads, key_heads)
            )
            up = torch.randn(1, tokens, heads, width, device=bench.device, dtype=torch.bfloat16)
            useful = 14 * sum(length**2 for length in lengths) / 2 * heads * width  # 2 products forward, 5 backward
            for way, run in _ways(q, k, v, lengths, bench.device).items():
                what = {"way": way, "lengths": kind, "tokens": tokens, "samples": len(lengths)}
                with bench.caught("attention", **what):
                    bench.forget_peak()
                    ms = bench.milliseconds(_with_backward(run, (q, k, v), up), 1, 3, 4.0)
                    bench.say("attention", **what, ms=ms, useful_tflops=useful / ms / 1e9, peak_gib=bench.peak_gib())


def _with_backward(run: Callable[[], Tensor], inputs: tuple[Tensor, ...], up: Tensor) -> Callable[[], Any]:
    return lambda: torch.autograd.grad(run(), inputs, up)


def _ways(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], device: torch.device) -> dict[str, Callable[[], Tensor]]:
    at = Boundaries.of(lengths).to(device)
    module = torch.nn.Module()
    ids = torch.repeat_interleave(torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device))
    place = torch.arange(sum(lengths), device=device)
    mask = (ids[:, None] == ids[None, :]) & (place[:, None] >= place[None, :])
    whole = sum(lengths)
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: by_sample(module, q, k, v, None, boundaries=at)[0],
        "SDPA by sample": lambda: ours._one_by_one(q, k, v, lengths, None, whole),
        "dense mask": lambda: F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(1, 2),
    }
    if ours.varlen_takes(q, v):
        ways["varlen_attn"] = lambda: ours.varlen(q, k, v, (at.cumulative,) * 2, (max(lengths),) * 2, None, whole)
    return ways


def head(bench: Bench) -> None:
    """Log-probabilities of trained tokens, forward and backward, as the learner takes them."""
    real = bench.shapes == "real"
    tokens = 8192 if real else 64
    for shape in ("0.6B", "4B") if real else ("tiny",):
        width, vocab = SHAPES[shape]["hidden_size"], SHAPES[shape]["vocab_size"]
        hidden = torch.randn(tokens, width, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
        weight = torch.randn(vocab, width, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
        targets = torch.randint(vocab, (tokens,), device=bench.device)
        for chunk in (None, 512, 8192) if real else (None, 16):
            run = _head_step(hidden, weight, targets, chunk)
            bench.forget_peak()
            ms = bench.milliseconds(run, 1, 3, 5.0)
            work = 8 * tokens * width * vocab  # a product forward, three backward: the logits are computed again
            bench.say(
                "head",
                model=shape,
                chunk=chunk or "default",
                ms=ms,
                tflops=work / ms / 1e9,
                peak_gib=bench.peak_gib(),
            )


def _head_step(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int | None) -> Callable[[], Any]:
    def step() -> Any:
        found = token_logprobs(hidden, weight, targets, 1.0, chunk)
        return torch.autograd.grad(found.logprobs.sum(), (hidden, weight))

    return step
