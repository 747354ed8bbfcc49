"""The metrics of an optimizer step: summed per sample on the device, read once at the end, added over processes.

Nothing here makes the host wait for a device while packs are on their way. Metrics of rollouts are in
`rl/batch_metrics.py`.
"""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rlm_env.train.learner import distributed
from rlm_env.train.learner.cost import peak_flops
from rlm_env.train.learner.packing import Pack
from rlm_env.train.learner.samples import Sample, SampleKind

_MEANS = ("entropy", "mismatch_kl", "ratio", "log_ratio_abs", "clipped", "clipped_high", "clipped_low", "filtered")
"""Metrics that are means over the trained tokens."""
_BY_LABEL = ("entropy", "mismatch_kl")
_EXTREMES = {
    "sampling/sampling_logp_difference/max": lambda found: found["log_ratio_abs"].max(),
    "sampling/importance_sampling_ratio/max": lambda found: found["ratio"].max(),
    "sampling/importance_sampling_ratio/min": lambda found: -found["ratio"].min(),
}
"""Largest values over all trained tokens, under TRL's names; the smallest one as its negative."""


class StepMetrics:
    """What one step has seen so far, on this process."""

    def __init__(self, samples: Sequence[Sample], further: Sequence[str] = ()) -> None:
        """`samples`: all of the step, on every process the same. `further`: metrics of the loss that are means over the
        trained tokens too, and that only some configurations have."""
        self._means = (*_MEANS, *further)
        self._names = ("tokens", "loss", *self._means)
        self._labels = sorted({sample.label for sample in samples})
        self._samples: list[Sample] = []
        self._sums: list[Tensor] = []
        self._extremes: list[Tensor] = []

    def add(self, pack: Pack, losses: Tensor, entropy: Tensor, found: dict[str, Tensor]) -> None:
        """Takes in a pack. All tensors are [trained], without gradient; `losses` are shares of the step's loss."""
        self._samples += pack.samples
        values = {"tokens": torch.ones_like(losses), "loss": losses, "entropy": entropy, **found}
        columns = torch.stack([values[name].to(losses.dtype) for name in self._names], dim=1)
        sums = columns.new_zeros(len(pack.samples), len(self._names))
        self._sums.append(sums.index_add(0, pack.sequence_ids[pack.trained], columns))
        self._extremes.append(torch.stack([largest(found) for largest in _EXTREMES.values()]))

    def collect(self) -> dict[str, float]:
        """The metrics over all processes, which all must call this: the loss, means over the trained tokens, the same
        by kind of sample under `root/` and `sub/`, and where there are several environments `loss/<label>` (shares of
        the loss), `entropy/<label>` and `mismatch_kl/<label>`."""
        cells = {(k, label, name): 0.0 for k in SampleKind for label in self._labels for name in self._names}
        rows = torch.cat(self._sums).tolist() if self._sums else []
        for sample, row in zip(self._samples, rows, strict=True):
            for name, value in zip(self._names, row, strict=True):
                cells[sample.kind, sample.label, name] += value
        keys = {f"{number}": cell for number, cell in enumerate(cells)}
        added = distributed.sum_over_processes({key: cells[cell] for key, cell in keys.items()})
        found = {cell: added[key] for key, cell in keys.items()}
        metrics = self._over(found, SampleKind, self._labels, "")
        for kind in SampleKind:
            metrics |= self._over(found, (kind,), self._labels, f"{kind}/")
        del metrics["root/loss"], metrics["sub/loss"]
        if len(self._labels) > 1:
            for label in self._labels:
                own = self._over(found, SampleKind, [label], "")
                metrics |= {f"{name}/{label}": own[name] for name in ("loss", *_BY_LABEL) if name in own}
        return metrics | self._collect_extremes()

    def _over(
        self,
        cells: dict[tuple[SampleKind, str, str], float],
        kinds: Iterable[SampleKind],
        labels: Sequence[str],
        prefix: str,
    ) -> dict[str, float]:
        """Sums and means over some kinds and labels."""
        sums: defaultdict[str, float] = defaultdict(float)
        for kind in kinds:
            for label in labels:
                for name in self._names:
                    sums[name] += cells[kind, label, name]
        found = {f"{prefix}trained_tokens": sums["tokens"], f"{prefix}loss": sums["loss"]}
        if sums["tokens"]:
            found |= {prefix + name: sums[name] / sums["tokens"] for name in self._means}
        return found

    def _collect_extremes(self) -> dict[str, float]:
        least = [-float("inf")] * len(_EXTREMES)
        mine = torch.stack(self._extremes).amax(0).tolist() if self._extremes else least
        found = distributed.sum_over_processes(dict(zip(_EXTREMES, mine, strict=True)), largest=True)
        return {name: -value if name.endswith("/min") else value for name, value in found.items()}


def performance(tokens: int, work: float, seconds: float, device: torch.device) -> dict[str, float]:
    """prime-rl's names. `tokens`: those of all samples; `work`: floating-point operations, of all processes.

    `perf/throughput`: tokens a second of the update, over all processes. `perf/mfu`: percent of the cards' rate in
    bfloat16, where it is known. `perf/peak_memory`: the most GiB that this process has held so far; on a card, as in
    prime-rl, with what torch's allocator keeps free for itself, since an engine beside it cannot have that.
    """
    on_card = device.type == "cuda"
    used = (
        torch.cuda.max_memory_reserved(device) if on_card else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    found = {"perf/throughput": tokens / seconds, "perf/peak_memory": used / 2**30}
    peak = peak_flops(torch.cuda.get_device_name(device)) if on_card else None
    if peak is not None:
        found["perf/mfu"] = 100 * work / seconds / peak / distributed.world_size()
    return found
