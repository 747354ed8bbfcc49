"""Which samples share a tree: packs are cut out of the samples in tree order, so that those alike stay together.

A cut repeats what the samples on both sides of it share, once. Not covered: packs without trees (`packing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlm_env.train.learner.config import ModelConfig
from rlm_env.train.learner.packing import require_room
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.tree import common_lengths, tree_order
from rlm_env.train.learner.tree_attention import BlockSize

KEYS = 4
"""Most keys of a pack, in tokens of its budget. Many short samples after a long prompt would otherwise need memory that
the tokens they add do not show: a card holds the keys of its whole path for each of them, a CPU for each block."""
PAYS = 1.25
"""From which `shared_ratio` of a step's samples on `auto` takes trees (docs/decisions.md)."""


def may_be_trees(config: ModelConfig, device_type: str) -> bool:
    """Whether packs are trees, or become trees where that pays. `auto` does so on a CPU alone: the kernels of a card
    have not been measured on trees."""
    on_cpu = config.attention == "auto" and device_type == "cpu"
    return config.packing == "tree" or (config.packing == "auto" and on_cpu)


def takes_trees(config: ModelConfig, samples: Sequence[Sample]) -> bool:
    """Whether a step on these samples is computed as trees, by a model that can be."""
    return config.packing == "tree" or shared_ratio(samples) >= PAYS


def shared_ratio(samples: Sequence[Sample]) -> float:
    """How many times the computed tokens of one tree of all samples their tokens are; 1 where nothing is shared."""
    tokens = sum(map(len, samples))
    return tokens / (tokens - sum(common_lengths(tree_order(samples)))) if tokens else 1.0


def tree_packs(
    samples: Sequence[Sample],
    budget: int,
    processes: int,
    cost: Callable[[Sample, int], float],
    on_card: bool = False,
) -> list[list[Sample]]:
    """Packs of at most `budget` computed tokens, each in tree order; the most expensive first. There are as few as
    filling one after the other gives. For several processes their number is rounded up to rounds, and the packs cost
    about the same.

    `cost`: of a sample of which so many first tokens are computed for another one. `on_card`: each branch holds its own
    keys (see `KEYS`). Raises ValueError on a sample that is longer than the budget.
    """
    for sample in samples:
        require_room(sample, budget)
    ordered = tree_order(samples)
    shared = common_lengths(ordered)
    costs = [(cost(sample, common), cost(sample, 0)) for sample, common in zip(ordered, shared, strict=True)]
    packs = _cut(ordered, shared, budget, costs, float("inf"), on_card)
    most = -(-len(packs) // processes) * processes
    low, high = 0.0, sum(inner for inner, _ in costs)
    for _ in range(30 if processes > 1 else 0):  # the least cost of the most expensive pack, to nine digits
        middle = (low + high) / 2
        found = _cut(ordered, shared, budget, costs, middle, on_card)
        if len(found) > most:
            low = middle
        else:
            packs, high = found, middle
    whole = {id(sample): alone for sample, (_, alone) in zip(ordered, costs, strict=True)}
    return sorted(packs, key=lambda pack: -sum(map(whole.__getitem__, map(id, pack))))


def _cut(
    ordered: Sequence[Sample],
    shared: Sequence[int],
    budget: int,
    costs: Sequence[tuple[float, float]],
    most: float,
    on_card: bool,
) -> list[list[Sample]]:
    """Packs within the budget that cost at most `most`, as far as one sample does not cost more."""
    packs: list[list[Sample]] = []
    tokens, spent, keys = 0, 0.0, _Keys(on_card)
    for sample, common, (inner, alone) in zip(ordered, shared, costs, strict=True):
        own = len(sample) - common
        if (
            not packs
            or tokens + own > budget
            or keys.with_branch(len(sample), common) > KEYS * budget
            or spent + inner > most
        ):
            packs.append([])
            tokens, spent, keys = 0, 0.0, _Keys(on_card)
            common, own, inner = 0, len(sample), alone
        packs[-1].append(sample)
        keys.add(len(sample), common)
        tokens, spent = tokens + own, spent + inner
    return packs


class _Keys:
    """Counts the keys that a pack holds."""

    def __init__(self, on_card: bool) -> None:
        self._on_card = on_card
        self._done = 0
        """Those of blocks to which nothing is added any more."""
        self._block = BlockSize()

    def with_branch(self, length: int, common: int) -> int:
        """Their number with one more sample of so many tokens, of which so many are `common` to the one before."""
        own = length - common
        if not own:
            return self._done + self._block.keys
        if self._is_in_block(length, common):
            return self._done + self._block.keys + own
        return self._done + self._block.keys + length

    def add(self, length: int, common: int) -> None:
        """Counts it."""
        if length > common:
            if not self._is_in_block(length, common):
                self._done, self._block = self._done + self._block.keys, BlockSize()
            self._block.add(length, common)

    def _is_in_block(self, length: int, common: int) -> bool:
        return not self._block.tokens or (not self._on_card and self._block.takes(length, common))
