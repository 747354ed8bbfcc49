"""Attention by sample: the samples of a pack attend to themselves, and nothing else is multiplied out.

Registered with transformers as `by_sample`. It costs the sum of the squares of the samples' lengths; a mask over the
whole pack costs the square of their sum. On an H200 a pack of 72 samples (32,768 tokens) takes 205 ms through a mask
and 10 ms this way (docs/performance.md). Covered: causal self-attention, grouped queries, sliding windows. Not
covered: models that cap attention logits or add attention sinks, which are refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BY_SAMPLE = "by_sample"
"""The name for `attn_implementation`."""
LONG = 2048
"""Tokens from which on a sample goes to SDPA by itself on a card; shorter ones share one call of `varlen_attn`. One
launch for all wins on many short samples, SDPA's kernel has twice the rate on long ones (docs/performance.md)."""


class AttentionError(ValueError):
    """The model needs something that attention by sample does not compute."""


class Layout(Protocol):
    """How the tokens of a pack are laid out: which ones each attends to."""

    @property
    def tokens(self) -> int:
        """Tokens of the pack."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int) -> Tensor:
        """[1, tokens, heads, width], of tensors [1, heads, tokens, width]. `window`: how far back a token sees."""
        ...


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Where the samples of a pack begin and end. Made once per pack, so that no layer waits for the device."""

    lengths: tuple[int, ...]
    """Tokens of each sample, in order."""
    cumulative: Tensor
    """[samples + 1], int32: 0, and where each sample ends."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Boundaries:
        """The boundaries of samples of these lengths."""
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(tuple(lengths), ends)

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return sum(self.lengths)

    def to(self, device: torch.device | str) -> Boundaries:
        """The same on another device."""
        return Boundaries(self.lengths, to_device(self.cumulative, device))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int) -> Tensor:
        """See `Layout.attend`."""
        if varlen_takes(q, v):
            return _two_kernels(q, k, v, self, scale, window)
        return _one_by_one(q, k, v, self.lengths, scale, window)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A copy on another device, for which the host does not wait."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # from other memory the copy would wait for what runs on the card
    return tensor.to(device, non_blocking=True)


def by_sample(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    boundaries: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface.

    `query`: [1, heads, tokens, width]; `key` and `value`: [1, key heads, tokens, width].
    `boundaries`: those of a pack (`Boundaries`, or the branches of a tree, `tree_attention.py`); without them the whole
    sequence is one sample, and there may be a batch of several. Returns
    [1, tokens, heads, width]. Raises AttentionError on what it would compute wrongly.
    """
    _refuse(module, query, key, attention_mask, dropout, boundaries, others)
    window = sliding_window or query.shape[2]
    if boundaries is None:
        return dense(query, key, value, scaling, window), None
    return boundaries.attend(query, key, value, scaling, window), None


@cache
def register() -> None:
    """Makes `by_sample` known to transformers, once. Not its masks: without a way to make one transformers makes none,
    and does not look for samples in the position ids, for which it would wait for the device in every pack."""
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(BY_SAMPLE, by_sample)


def refuse_masks(decoder: nn.Module) -> None:
    """Lets the decoder of a model that attends by sample raise AttentionError where it is given a mask: padding would
    be attended to."""

    def check(_module: nn.Module, _inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if options.get("attention_mask") is not None:
            raise AttentionError("attention by sample takes no mask and no padding; pack samples instead")

    decoder.register_forward_pre_hook(check, with_kwargs=True)


def _refuse(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    dropout: float,
    boundaries: Layout | None,
    others: dict[str, Any],
) -> None:
    """Raises AttentionError for what a model asks of attention that is not computed here."""
    name = type(module).__name__
    for option, what in (("softcap", "caps attention logits"), ("s_aux", "has attention sinks")):
        if others.get(option) is not None:
            raise AttentionError(
                f'{name} {what}, which attention by sample does not compute; set trainer.attention = "eager"'
            )
    if mask is not None or dropout or query.shape[2] != key.shape[2] or getattr(module, "is_causal", True) is False:
        raise AttentionError(f"{name}: attention by sample is causal self-attention without a mask, a cache or dropout")
    if boundaries is not None and (len(query) != 1 or boundaries.tokens != query.shape[2]):
        raise AttentionError(f"{name}: {list(query.shape)} is not one pack of {boundaries.tokens} tokens")


def _two_kernels(q: Tensor, k: Tensor, v: Tensor, at: Boundaries, scale: float | None, window: int) -> Tensor:
    """The long samples in front one by one, all others together. Packs hold their longest samples first."""
    long = 0
    while long < len(at.lengths) and LONG <= at.lengths[long] <= window:
        long += 1
    if long == len(at.lengths):
        return _one_by_one(q, k, v, at.lengths, scale, window)
    head = sum(at.lengths[:long])
    ends, longest = at.cumulative[long:] - at.cumulative[long], max(at.lengths[long:])
    last_q, last_k, last_v = (x[:, :, head:] for x in (q, k, v))
    rest = varlen(last_q, last_k, last_v, (ends, ends), (longest, longest), scale, window)
    if not long:
        return rest
    front = _one_by_one(q[:, :, :head], k[:, :, :head], v[:, :, :head], at.lengths[:long], scale, window)
    return torch.cat((front, rest), dim=1)


def _one_by_one(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float | None, window: int) -> Tensor:
    """SDPA for each sample, neighbors of equal length in one call: sub-calls of one kind are many, short and alike."""
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    found = []
    for (length, count), *parts in zip(runs, q.split(sizes, 2), k.split(sizes, 2), v.split(sizes, 2), strict=True):
        queries, keys, values = (part[0].unflatten(1, (count, length)).transpose(0, 1) for part in parts)
        found.append(dense(queries, keys, values, scale, window).flatten(0, 1))
    return torch.cat(found).unsqueeze(0)


def dense(q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int, mask: Tensor | None = None) -> Tensor:
    """SDPA: [batch, tokens, heads, width]. Causal over one sample, or through a mask, which then minds the window."""
    tokens, grouped = q.shape[2], q.shape[1] != k.shape[1]
    if mask is None and window < tokens:
        place = torch.arange(tokens, device=q.device)
        back = place[:, None] - place[None, :]
        mask = (back >= 0) & (back < window)
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2)


def varlen_takes(query: Tensor, value: Tensor) -> bool:
    """`varlen_attn` runs on CUDA alone, in 16 bits, with one width for all of up to 256."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    width = query.shape[-1]
    return query.is_cuda and half and width == value.shape[-1] and width <= 256 and width % 8 == 0


def varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ends: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    scale: float | None,
    window: int,
) -> Tensor:
    """One call for many sequences: [1, tokens, heads, width]. Only what torch 2.11 and 2.13 both take.

    `ends`: where the queries and where the keys of each sequence end, [sequences + 1], int32, from 0 on; `longest`: the
    most of each. With fewer queries than keys the last query sees the last key (`tree_attention.py` makes sure).
    """
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"window_size": (-1 if window >= longest[1] else window - 1, 0)}
    if scale is not None:
        options["scale"] = scale
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in _varlen_options():
            options["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    flat_q, flat_k, flat_v = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))
    out = varlen_attn(flat_q, flat_k, flat_v, *ends, *longest, **options)
    assert isinstance(out, Tensor)  # not a pair with the log-sum-exp, which nobody asked for
    return out.unsqueeze(0)


@cache
def _varlen_options() -> frozenset[str]:
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)
