"""The prefix tree of a pack: what several samples begin with is computed once, in forward and backward.

The samples of a group share their prompt, a turn that rewrites history shares what it keeps, sub-calls share their
instruction. Equal ids give equal states where everything before is equal, so the tokens of a pack are laid out depth
first, each once: a sample adds only what it has beyond the sample before it. Losses stay those of samples: a token that
several train is predicted once, and each has its own term. Not covered: which samples share a pack
(`tree_packing.py`), and attention over the tree (`tree_attention.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlm_env.train.learner.attention import to_device
from rlm_env.train.learner.samples import Sample, joined
from rlm_env.train.learner.tree_attention import Branches


@dataclass(frozen=True, slots=True)
class Tree:
    """Where the tokens of samples are among the computed ones, and what is predicted. Tensors are int64."""

    places: Tensor
    """[tokens of samples]: the computed token of each."""
    targets: Tensor
    """[predicted]: the computed tokens that are trained, each once for all samples that train it at one temperature."""
    predictors: Tensor
    """[predicted]: the computed token before each."""
    first: Tensor
    """[predicted]: the first of the pack's trained tokens (`Pack.trained`) that each is."""
    predicted: Tensor
    """[trained]: for each of the pack's trained tokens, which of the predicted it is."""
    branches: Branches
    """Which computed tokens each attends to."""

    def to(self, device: torch.device | str) -> Tree:
        """The same on another device."""
        names = ("places", "targets", "predictors", "first", "predicted")
        moved = {name: to_device(getattr(self, name), device) for name in names}
        return replace(self, **moved, branches=self.branches.to(device))


def common_lengths(samples: Sequence[Sample]) -> list[int]:
    """For each sample, how many of its first tokens the sample before it has too."""
    ids = joined((sample.token_ids for sample in samples), np.int64)
    found: list[int] = []
    begin, before = 0, ids[:0]
    for length in map(len, samples):
        own, begin = ids[begin : begin + length], begin + length
        most = min(length, len(before))
        same = own[:most] == before[:most]
        found.append(most if same.all() else int(same.argmin()))
        before = own
    return found


def tree_order(samples: Iterable[Sample]) -> list[Sample]:
    """The samples in an order in which none has more in common with one further before it than with the one before."""
    return sorted(samples, key=lambda sample: np.array(sample.token_ids, ">i8").tobytes())


def make_tree(samples: Sequence[Sample], trained: Tensor) -> Tree:
    """The tree of samples in the given order, which should be that of `tree_order`: what is shared with samples further
    before is computed again. `trained`: see `Pack.trained`."""
    shared = common_lengths(samples)
    paths: list[np.ndarray] = []
    computed = 0
    for sample, common in zip(samples, shared, strict=True):
        kept = paths[-1][:common] if paths else np.empty(0, np.int64)
        own = len(sample) - common
        paths.append(np.concatenate([kept, np.arange(computed, computed + own)]))
        computed += own
    places = np.concatenate(paths)
    temperatures = np.repeat([sample.temperature for sample in samples], [len(sample) for sample in samples])
    at = trained.numpy()
    pairs = np.rec.fromarrays([places[at], temperatures[at]])
    _, first, predicted = np.unique(pairs, return_index=True, return_inverse=True)
    at = at[first]
    arrays = (places, places[at], places[at - 1], first, predicted)
    return Tree(*map(torch.from_numpy, arrays), branches=Branches.of(paths, shared))
