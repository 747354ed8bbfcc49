"""Attention over a prefix tree: each token attends to the tokens on its path from the root, and itself.

A branch is what a sample has beyond the sample before it; its path is that sample. Neighboring branches form a block,
which is one call of SDPA: queries are its tokens, keys the path before it and its tokens. On a card, in 16 bits, all
branches are one call of `varlen_attn` instead. Not covered: the layout itself (`tree.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from rlm_env.train.learner.attention import dense, to_device, varlen, varlen_takes

WASTE = 1.5
"""How many times the pairs of tokens that its branches need a block may multiply out, so that calls are fewer."""
FEW = 64 * 64
"""Pairs that a block may multiply out in any case: a call costs more."""


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Branches that are one call."""

    first: int
    """The first branch."""
    last: int
    """The branch after the last."""
    tokens: int
    """Its own tokens, the queries."""
    pieces: tuple[int, ...]
    """Which of `Branches.pieces` are the keys: the path before it, then its own tokens."""


@dataclass(slots=True)
class BlockSize:
    """Of a block to which branches are added one after the other."""

    before: int = 0
    """Tokens of the path before it."""
    tokens: int = 0
    """Its own."""
    needed: float = 0.0
    """Pairs of tokens that its branches need."""

    @property
    def keys(self) -> int:
        """Tokens that its queries are multiplied with."""
        return self.before + self.tokens

    def takes(self, length: int, common: int) -> bool:
        """Whether it still multiplies out few enough pairs with a branch of so many tokens, of which so many are
        `common` to the one before."""
        tokens = self.tokens + length - common
        most = max(FEW, WASTE * (self.needed + _pairs(length, common)))
        return not self.tokens or tokens * (self.before + tokens) <= most

    def add(self, length: int, common: int) -> None:
        """Adds such a branch."""
        if not self.tokens:
            self.before = common
        self.tokens += length - common
        self.needed += _pairs(length, common)


def _pairs(length: int, common: int) -> float:
    own = length - common
    return own * length if common else own * own / 2  # without a path before it, half is skipped


@dataclass(frozen=True)
class Branches:
    """Which computed tokens each token attends to. Made once per pack."""

    paths: Sequence[np.ndarray]
    """Of each branch, the computed tokens of its sample, in order."""
    shared: Sequence[int]
    """Of each branch, how many of these belong to branches before it."""
    pieces: tuple[int, ...]
    """Lengths of the stretches of computed tokens of which all paths consist, in order."""
    blocks: tuple[AttentionBlock, ...]
    device: torch.device

    @classmethod
    def of(cls, paths: Sequence[np.ndarray], shared: Sequence[int]) -> Branches:
        """`paths`: of all samples of a pack, in order; `shared`: of each, how many tokens the sample before has too."""
        own = [(path, common) for path, common in zip(paths, shared, strict=True) if len(path) > common]
        # A stretch ends where a branch ends, and where another one leaves it.
        ends = {int(path[-1]) + 1 for path, _ in own} | {int(path[common - 1]) + 1 for path, common in own if common}
        starts = np.array([0, *sorted(ends)])
        paths, shared = [path for path, _ in own], [common for _, common in own]
        return cls(paths, shared, tuple(np.diff(starts).tolist()), _blocks(paths, shared, starts), torch.device("cpu"))

    @property
    def tokens(self) -> int:
        """The number of computed tokens."""
        return sum(self.pieces)

    def to(self, device: torch.device | str) -> Branches:
        """The same for another device."""
        return Branches(self.paths, self.shared, self.pieces, self.blocks, torch.device(device))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int) -> Tensor:
        """[1, tokens, heads, width], of tensors [1, heads, tokens, width]. `window`: how far back a token sees."""
        if varlen_takes(q, v) and aligned_at_the_end(q.device):
            places, ends, longest = self._varlen
            return varlen(q, k[:, :, places], v[:, :, places], ends, longest, scale, window)
        keys, values = k.split(self.pieces, 2), v.split(self.pieces, 2)
        queries = q.split([block.tokens for block in self.blocks], 2)
        found = []
        for block, query, mask in zip(self.blocks, queries, self._masks(window), strict=True):
            key, value = (torch.cat([parts[piece] for piece in block.pieces], 2) for parts in (keys, values))
            found.append(dense(query, key, value, scale, window, mask))
        return torch.cat(found, dim=1)

    def _masks(self, window: int) -> list[Tensor | None]:
        """Of each block [queries, keys], True where one attends to the other; None: causal, with nothing before."""
        if window >= max(map(len, self.paths)):
            return self._whole_masks
        windowed: list[Tensor | None] = []
        for mask, back in zip(self._whole_masks, self._distances, strict=True):
            windowed.append(None if mask is None else mask & (back < window))
        return windowed

    @cached_property
    def _whole_masks(self) -> list[Tensor | None]:
        found = [_mask(self.paths, self.shared, block) for block in self.blocks]
        return [None if mask is None else to_device(torch.from_numpy(mask), self.device) for mask in found]

    @cached_property
    def _distances(self) -> list[Tensor]:
        """Of each block [queries, keys]: how far back a key is, where it is on the path."""
        depth = np.empty(self.tokens, np.int64)
        for path in self.paths:
            depth[path] = np.arange(len(path))
        found = []
        for block in self.blocks:
            own, before = _own(self.paths, self.shared, block), self.shared[block.first]
            keys = np.concatenate([np.arange(before), depth[own]])
            found.append(to_device(torch.from_numpy(depth[own][:, None] - keys), self.device))
        return found

    @cached_property
    def _varlen(self) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[int, int]]:
        """The keys of all branches one after the other, where those of each end, queries and keys, and the longest."""
        lengths = [len(p) - common for p, common in zip(self.paths, self.shared, strict=True)], [*map(len, self.paths)]
        queries, keys = (np.cumsum([0, *counts]).astype(np.int32) for counts in lengths)
        places = to_device(torch.from_numpy(np.concatenate(self.paths)), self.device)
        ends = to_device(torch.from_numpy(queries), self.device), to_device(torch.from_numpy(keys), self.device)
        return places, ends, (max(lengths[0]), max(lengths[1]))


def _blocks(paths: Sequence[np.ndarray], shared: Sequence[int], starts: np.ndarray) -> tuple[AttentionBlock, ...]:
    """The branches in blocks. `starts`: where pieces begin, and the end."""
    found: list[AttentionBlock] = []
    first, size = 0, BlockSize()
    for index, (path, common) in enumerate(zip(paths, shared, strict=True)):
        if not size.takes(len(path), common):
            found.append(_block(paths, shared, starts, first, index))
            first, size = index, BlockSize()
        size.add(len(path), common)
    return (*found, _block(paths, shared, starts, first, len(paths)))


def _block(
    paths: Sequence[np.ndarray], shared: Sequence[int], starts: np.ndarray, first: int, last: int
) -> AttentionBlock:
    begin, end = int(paths[first][shared[first]]), int(paths[last - 1][-1]) + 1
    places = np.concatenate([paths[first][: shared[first]], np.arange(begin, end)])
    pieces = np.searchsorted(starts, places[np.isin(places, starts)])
    return AttentionBlock(first, last, end - begin, tuple(pieces.tolist()))


def _own(paths: Sequence[np.ndarray], shared: Sequence[int], block: AttentionBlock) -> np.ndarray:
    """The tokens of a block."""
    begin = int(paths[block.first][shared[block.first]])
    return np.arange(begin, begin + block.tokens)


def _mask(paths: Sequence[np.ndarray], shared: Sequence[int], block: AttentionBlock) -> np.ndarray | None:
    """Which keys, the path before the block and then its tokens, each of its tokens attends to."""
    before = shared[block.first]
    if block.last - block.first == 1 and not before:
        return None
    begin = int(paths[block.first][before])
    mask = np.zeros((block.tokens, before + block.tokens), bool)
    for path, common in zip(paths[block.first : block.last], shared[block.first : block.last], strict=True):
        columns = np.where(path < begin, np.arange(len(path)), before + path - begin)
        mask[np.ix_(path[common:] - begin, columns)] = np.tri(len(path) - common, len(path), common, bool)
    return mask


@cache
def aligned_at_the_end(device: torch.device) -> bool:
    """Whether `varlen_attn` on this device lets the last of fewer queries see the last of more keys, with a window and
    without. Otherwise it would be wrong without an error."""
    shape = {"device": device, "dtype": torch.bfloat16}
    queries, keys = (9, 70), (40, 70)
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (torch.randn(1, 2, sum(n), 64, generator=generator, **shape) for n in (queries, keys, keys))
    at_q, at_k = (torch.tensor([0, *np.cumsum(n)], dtype=torch.int32, device=device) for n in (queries, keys))
    for window in (16, 128):
        found = varlen(q, k, v, (at_q, at_k), (max(queries), max(keys)), None, window)
        expected = []
        for query, key, value in zip(q.split(queries, 2), k.split(keys, 2), v.split(keys, 2), strict=True):
            place = torch.arange(key.shape[2], device=device)
            back = place[-query.shape[2] :, None] - place
            expected.append(dense(query, key, value, None, 128, (back >= 0) & (back < window)))
        if not (found - torch.cat(expected, dim=1)).abs().max() < 0.1:
            return False
    return True
