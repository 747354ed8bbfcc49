"""Log-probabilities of given tokens from hidden states and the vocabulary head, at a temperature, with the entropy.

The softmax is in float32 whatever the model's type, and in chunks of tokens, so that logits of the shape
[tokens, vocab] never exist, neither in forward nor in backward. Not covered: heads that are more than one matrix
product (a bias, soft-capped or scaled logits), which `packing_check.py` refuses.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 2**26, "cuda": 2**28}
"""Default number of logits held at once, by device type: 256 MiB and 1 GiB in float32. On an H200, chunks of 2,048
tokens at a vocabulary of 152 k were 25 to 35 % faster than 441 tokens, and 8,192 tokens hardly faster than 2,048
(docs/performance.md)."""


class TokenLogprobs(NamedTuple):
    """Both of shape [tokens], in float32 (float64 where the hidden states are)."""

    logprobs: Tensor
    """Natural log, after temperature; with gradient."""
    entropy: Tensor
    """Of the distribution over the vocabulary, in nats; without gradient."""


def token_logprobs(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    temperature: float | Tensor = 1.0,
    chunk: int | None = None,
) -> TokenLogprobs:
    """log softmax(hidden @ head_weight.T / temperature) at `targets`.

    `hidden`: [tokens, width], the state that predicts each target. `head_weight`: [vocab, width], used in the type
    of `hidden`. `targets`: [tokens], int64. `temperature`: the engine's when it sampled, one value or [tokens].
    `chunk`: tokens at once; None: as many as `chunk_elements` allows. The result does not depend on it.

    Logits are recomputed in the backward pass, so a step costs one more product with the head. `hidden` and
    `head_weight` get gradients (the latter's is summed over chunks in float32), the temperature does not, and there are
    no second derivatives. Raises ValueError on shapes that do not fit and a temperature of 0 or below; a temperature on
    a GPU is not checked, since that would wait for the GPU (`packing.collate` has checked it).
    """
    tokens, vocab = len(targets), len(head_weight)
    if hidden.ndim != 2 or len(hidden) != tokens or head_weight.ndim != 2 or targets.ndim != 1:
        raise ValueError(
            f"expected hidden [tokens, width], head_weight [vocab, width] and targets [tokens], got "
            f"{list(hidden.shape)}, {list(head_weight.shape)} and {list(targets.shape)}"
        )
    exact = torch.promote_types(hidden.dtype, torch.float32)
    scale = torch.as_tensor(temperature, dtype=exact, device=hidden.device).expand(tokens)
    known = scale if scale.device.type == "cpu" else torch.zeros(0)
    if not (bool((known > 0).all()) if isinstance(temperature, Tensor) else temperature > 0):
        raise ValueError("temperature must be above 0: greedy sampling has no log-probabilities to train on")
    chunk = chunk or max(1, chunk_elements(hidden.device.type) // vocab)
    return TokenLogprobs(*_ChunkedLogprobs.apply(hidden, head_weight, targets, scale, chunk))


def chunk_elements(device_type: str) -> int:
    """The default number of logits held at once."""
    return CHUNK_ELEMENTS.get(device_type, CHUNK_ELEMENTS["cpu"])


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy, normalizer = (torch.empty_like(temperature) for _ in range(3))
        head = weight.to(hidden.dtype)
        for part in _parts(len(targets), chunk):
            logits = _logits(hidden[part], head, temperature[part])
            normalizer[part] = torch.logsumexp(logits, dim=-1)
            logprobs[part] = logits.gather(1, targets[part, None])[:, 0] - normalizer[part]
            probabilities = torch.exp(logits - normalizer[part, None])
            entropy[part] = normalizer[part] - logits.mul_(probabilities).sum(dim=-1)
        ctx.save_for_backward(hidden, weight, targets, temperature, normalizer)
        ctx.chunk = chunk
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the signature
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad = grads[0]  # the entropy has none
        hidden, weight, targets, temperature, normalizer = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        head = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=temperature.dtype) if need_weight else None
        for part in _parts(len(targets), ctx.chunk):
            logits = _logits(hidden[part], head, temperature[part])
            # d logprob / d logits = (one-hot of the target - softmax) / temperature
            step = logits.sub_(normalizer[part, None]).exp_().neg_()
            step.scatter_add_(1, targets[part, None], torch.ones_like(normalizer[part, None]))
            step = step.mul_((grad[part] / temperature[part])[:, None]).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = _product(step, head)
            if grad_weight is not None:
                _add_product(grad_weight, step.T, hidden[part])
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None, None


def _parts(tokens: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk)]


def _logits(hidden: Tensor, head: Tensor, temperature: Tensor) -> Tensor:
    """[chunk, vocab], in the type of the temperature."""
    return _product(hidden, head.T).to(temperature.dtype).div_(temperature[:, None])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place where the device can: the gradient of a large vocabulary is then read and written
    once per chunk."""
    with torch.autocast(left.device.type, enabled=False):
        if left.dtype == total.dtype:
            total.addmm_(left, right)
        elif _adds_wider(left.device, left.dtype, total.dtype):
            torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
        else:
            total += left @ right


@cache
def _adds_wider(device: torch.device, narrow: torch.dtype, wide: torch.dtype) -> bool:
    """Whether this torch multiplies in a narrow type and adds to a wider one in a single operation; on CPUs it does
    not."""
    if device.type != "cuda":
        return False
    total = torch.ones(16, 16, dtype=wide, device=device)
    ones = torch.ones(16, 16, dtype=narrow, device=device)
    try:
        torch.addmm(total, ones, ones, out_dtype=wide, out=total)
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return bool((total == 17).all())


def _product(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product in the operands' own type, even under autocast."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right
