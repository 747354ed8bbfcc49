"""Packing: several samples are concatenated into one sequence (a packed micro-batch), so that no token is padding.

Not covered: the model's forward over a pack (`forward.py`), the check that a model keeps its samples apart
(`packing_check.py`), and which samples share a tree (`tree_packing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from heapq import heappop, heappush, heapreplace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rlm_env.train.learner.attention import Boundaries, Layout, to_device
from rlm_env.train.learner.samples import Sample, joined
from rlm_env.train.learner.tree import Tree, make_tree


@dataclass(slots=True)
class Pack:
    """Concatenated samples. Tensors have the shape [tokens] unless noted otherwise: one for each token of each sample.
    The model computes as many tokens, or with a tree fewer: what samples have in common once.

    Attention by sample keeps samples apart by `boundaries`. transformers' own implementations do so by `position_ids`,
    which restart at 0 with each sample: from them they derive a mask, unless a mask or a cache is passed as well.
    """

    samples: list[Sample]
    input_ids: Tensor
    """[1, computed tokens], int64."""
    position_ids: Tensor
    """[1, computed tokens], int64: the position within the sample."""
    sequence_ids: Tensor
    """int64: the index of the token's sample in `samples`."""
    mask: Tensor
    """bool: the trained tokens."""
    behavior_logprobs: Tensor
    """float32; 0 where `mask` is False."""
    weights: Tensor
    """float32: the weight of the token's sample."""
    temperatures: Tensor
    """float32: the temperature that the token's sample was sampled with."""
    advantages: Tensor
    """float32: the advantage of the token's sample."""
    teacher_logprobs: Tensor
    """float32; 0 where `mask` is False, and for samples without a teacher."""
    teacher_weights: Tensor
    """float32: the weight of the teacher in the advantage of the token's sample."""
    trained: Tensor
    """[trained], int64: where `mask` is True. Known beforehand, so that nothing has to wait for the device to count."""
    boundaries: Boundaries
    """Lengths and ends of the samples."""
    tree: Tree | None = None
    """Where the computed tokens are a tree: which ones those of the samples are."""

    @property
    def computed(self) -> int:
        """Tokens that every layer computes."""
        return self.input_ids.shape[1]

    @property
    def layout(self) -> Layout:
        """Which computed tokens each attends to."""
        return self.boundaries if self.tree is None else self.tree.branches

    def __len__(self) -> int:
        return len(self.mask)

    def spread(self, values: Sequence[float]) -> Tensor:
        """Expands one value per sample (an advantage, a temperature) to one per token, in float32."""
        if len(values) != len(self.samples):
            raise ValueError(f"expected one value for each of the {len(self.samples)} samples, got {len(values)}")
        return torch.tensor(values, dtype=torch.float32, device=self.mask.device)[self.sequence_ids]

    def to(self, device: torch.device | str) -> Self:
        """The same pack on another device. The host does not wait for a copy to a card."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: to_device(v, device) for n, v in values.items() if isinstance(v, Tensor)}
        tree = None if self.tree is None else self.tree.to(device)
        return replace(self, **moved, boundaries=self.boundaries.to(device), tree=tree)


def balanced_packs(
    samples: Sequence[Sample], budget: int, processes: int, cost: Callable[[Sample], float], together: bool = True
) -> list[list[Sample]]:
    """Packs for several processes, in rounds of `processes` packs of about equal cost, the most expensive first.

    All processes wait for the slowest in every round. There are as few rounds as the packs of `pack_samples` need; over
    these, samples go from the most expensive to the cheapest into the pack that has cost least so far and has room.
    Where they do not fit that way, the packs are those of `pack_samples`. The last round may lack packs. Raises
    ValueError as `pack_samples` does.
    """
    packs = pack_samples(samples, budget, together)
    rounds = -(-len(packs) // processes)
    if together and (found := _spread(samples, budget, rounds * processes, cost)) is not None:
        packs = found
    return sorted(packs, key=lambda pack: -sum(map(cost, pack)))


def _spread(
    samples: Sequence[Sample], budget: int, count: int, cost: Callable[[Sample], float]
) -> list[list[Sample]] | None:
    """At most `count` packs of about equal cost; None where a sample does not fit into any."""
    packs: list[list[Sample]] = [[] for _ in range(count)]
    room = [budget] * count
    cheapest = [(0.0, index) for index in range(count)]  # a heap
    for sample in sorted(samples, key=cost, reverse=True):
        full = []
        while cheapest and room[cheapest[0][1]] < len(sample):
            full.append(heappop(cheapest))
        if not cheapest:
            return None
        spent, index = cheapest[0]
        packs[index].append(sample)
        room[index] -= len(sample)
        heapreplace(cheapest, (spent + cost(sample), index))
        for entry in full:
            heappush(cheapest, entry)
    return [sorted(pack, key=len, reverse=True) for pack in packs if pack]


def pack_samples(samples: Sequence[Sample], budget: int, together: bool = True) -> list[list[Sample]]:
    """Assigns each sample to one pack of at most `budget` tokens, by first-fit decreasing.

    Longest samples first, each into the first pack with enough room: at most 11/9 of the minimum number of packs,
    plus one (Dósa 2007). Equal lengths keep their order, so the result is deterministic. Without `together` each sample
    is a pack. Raises ValueError on a sample that is longer than the budget: truncating it would train something else.
    """
    packs: list[list[Sample]] = []
    room: list[int] = []
    for sample in sorted(samples, key=len, reverse=True):
        size = len(sample)
        require_room(sample, budget)
        index = next((index for index, left in enumerate(room) if left >= size), None)
        if index is None or not together:
            packs.append([sample])
            room.append(budget - size)
        else:
            packs[index].append(sample)
            room[index] -= size
    return packs


def require_room(sample: Sample, budget: int) -> None:
    """Raises ValueError on a sample that is longer than a pack may be."""
    if len(sample) > budget:
        raise ValueError(
            f"a sample of rollout {sample.rollout_id!r} has {len(sample):,} tokens, more than the token budget of a "
            f"pack ({budget:,}); raise trainer.pack_tokens or leave the rollout out"
        )


def collate(samples: Sequence[Sample], weights: Sequence[float] | None = None, as_tree: bool = False) -> Pack:
    """The tensors of one pack. `weights`: of each sample; None: its own. `as_tree`: what neighboring samples begin with
    is computed once. Raises ValueError if there is no sample, or one that cannot be trained."""
    samples = list(samples)
    if not samples:
        raise ValueError("a pack needs at least one sample")
    for sample in samples:
        if not sample.token_ids or sample.mask[0]:
            raise ValueError(
                f"a sample of rollout {sample.rollout_id!r} trains its first token, which nothing predicts"
            )
        if not sample.temperature > 0:
            raise ValueError(
                f"a sample of rollout {sample.rollout_id!r} was sampled at temperature {sample.temperature}: greedy "
                "sampling has no log-probabilities to train on"
            )
    boundaries = Boundaries.of([len(sample) for sample in samples])
    lengths = torch.tensor(boundaries.lengths)

    def of_tokens(lists: Iterable[Iterable[float]], dtype: Any) -> Tensor:
        return torch.from_numpy(joined(lists, dtype))

    def spread(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32).repeat_interleave(lengths)

    mask = of_tokens((sample.mask for sample in samples), np.bool_)

    trained = mask.nonzero()[:, 0]
    tree = make_tree(samples, trained) if as_tree else None

    def computed(values: Tensor) -> Tensor:
        """One value for each computed token, of those of all samples; they are equal where samples share one."""
        return values if tree is None else values.new_empty(tree.branches.tokens).index_put((tree.places,), values)

    return Pack(
        samples=samples,
        input_ids=computed(of_tokens((sample.token_ids for sample in samples), np.int64))[None],
        position_ids=computed(of_tokens(map(range, boundaries.lengths), np.int64))[None],
        sequence_ids=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        mask=mask,
        behavior_logprobs=of_tokens((sample.behavior_logprobs for sample in samples), np.float32),
        weights=spread([sample.weight * sample.stands_for for sample in samples] if weights is None else weights),
        temperatures=spread(sample.temperature for sample in samples),
        advantages=spread(sample.advantage for sample in samples),
        teacher_logprobs=of_tokens((s.teacher_logprobs or [0.0] * len(s) for s in samples), np.float32),
        teacher_weights=spread(sample.teacher_weight for sample in samples),
        trained=trained,
        boundaries=boundaries,
        tree=tree,
    )
