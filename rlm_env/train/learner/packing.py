"""Rows into packs: several rows laid end to end, so that no token is padding.

Covered: which rows share a pack, the tensors of a pack. Not covered: the model's forward over it (`forward.py`),
and whether a model keeps the rows of a pack apart (`packing_check.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from rlm_env.train.rows import Row


@dataclass(slots=True)
class Pack:
    """Rows end to end. Tensors have the shape [tokens] except where said otherwise.

    A model is given `input_ids` and `position_ids` alone. Position ids begin again at 0 with each row, and from
    that transformers makes an attention mask that keeps rows apart; an attention mask given as well would switch
    that off, and a cache would too.
    """

    rows: list[Row]
    input_ids: Tensor
    """[1, tokens], int64."""
    position_ids: Tensor
    """[1, tokens], int64: the place within the row."""
    sequence_ids: Tensor
    """int64: the index in `rows` of the row that a token belongs to."""
    mask: Tensor
    """bool: the trained tokens."""
    behavior_logprobs: Tensor
    """float32; 0 where `mask` is False."""
    weights: Tensor
    """float32: the weight of the token's row."""

    def __len__(self) -> int:
        return len(self.mask)

    def spread(self, values: Sequence[float]) -> Tensor:
        """One value per row to one per token (float32), for example advantages or temperatures."""
        if len(values) != len(self.rows):
            raise ValueError(f"expected one value for each of the {len(self.rows)} rows, got {len(values)}")
        return torch.tensor(values, dtype=torch.float32, device=self.mask.device)[self.sequence_ids]

    def to(self, device: torch.device | str) -> Self:
        """The same pack on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: v.to(device, non_blocking=True) for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def pack_rows(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Shares rows out into packs of at most `budget` tokens, by first-fit decreasing.

    Longest rows first, each into the first pack that still has room: at most 11/9 of the fewest packs possible,
    plus one (Dósa 2007). Every row is in exactly one pack; equal lengths keep their order, so equal inputs give
    equal packs. Raises ValueError on a row that is longer than the budget: cutting it would train something else.
    """
    packs: list[list[Row]] = []
    room: list[int] = []
    for row in sorted(rows, key=len, reverse=True):
        size = len(row)
        if size > budget:
            raise ValueError(
                f"a row of rollout {row.rollout_id!r} has {size:,} tokens, more than a pack may hold ({budget:,}); "
                "raise the token budget of a pack or leave the rollout out"
            )
        index = next((index for index, left in enumerate(room) if left >= size), None)
        if index is None:
            packs.append([row])
            room.append(budget - size)
        else:
            packs[index].append(row)
            room[index] -= size
    return packs


def collate(rows: Sequence[Row]) -> Pack:
    """The tensors of one pack. Raises ValueError on no rows, and on a row whose first token is trained."""
    rows = list(rows)
    if not rows:
        raise ValueError("a pack needs at least one row")
    for row in rows:
        if not row.token_ids or row.mask[0]:
            raise ValueError(f"a row of rollout {row.rollout_id!r} trains its first token, which nothing predicts")
    lengths = torch.tensor([len(row) for row in rows])
    return Pack(
        rows=rows,
        input_ids=torch.tensor([[token for row in rows for token in row.token_ids]]),
        position_ids=torch.cat([torch.arange(length) for length in lengths.tolist()])[None],
        sequence_ids=torch.repeat_interleave(torch.arange(len(rows)), lengths),
        mask=torch.tensor([trained for row in rows for trained in row.mask]),
        behavior_logprobs=torch.tensor([value for row in rows for value in row.behavior_logprobs]),
        weights=torch.tensor([row.weight for row in rows], dtype=torch.float32).repeat_interleave(lengths),
    )
