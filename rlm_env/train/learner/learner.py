"""The learner: samples in, one optimizer step out.

Covered: everything between samples with advantages and new weights, on one process or many; log-probabilities for
checks; weights as a folder for an engine; its own state on disk. Not covered: where samples come from, engines, when to
save.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from rlm_env.train.learner import distributed
from rlm_env.train.learner.checkpoint import atomic_folder
from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.logprobs import TokenLogprobs
from rlm_env.train.learner.loss import loss_denominator, policy_loss
from rlm_env.train.learner.memory import require_memory
from rlm_env.train.learner.model import (
    PackModel,
    base_model,
    compute_dtype,
    load_model,
    merged_weights,
    pick_device,
    write_model,
)
from rlm_env.train.learner.optimizer import Optimizer, split_masters
from rlm_env.train.learner.packing import Pack, collate
from rlm_env.train.learner.packing_check import TOLERANCES, check_packing
from rlm_env.train.learner.samples import Sample, SampleKind

_MEANS = ("entropy", "mismatch_kl", "ratio", "log_ratio_abs", "clipped", "clipped_high", "clipped_low")
"""Metrics that are means over trained tokens."""
_STATE = "learner.json"


class Learner:
    """Owns model, optimizer, schedule and random state; knows nothing of rollouts and engines.

    `folder`: the model to begin with, which stays as it is. `total_steps`: where the schedule ends. `seed`: of the
    adapter and the random state. On several processes (`distributed.process_group`) every method is called on all
    of them, with equal arguments (`distributed.leading` and `follow` see to that), and does the same as on one.

    Construction refuses a model that does not fit the memory at hand (ModelError) and one whose samples reach each
    other in a pack (PackingError).
    """

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        optimizer: OptimizerConfig,
        loss: LossConfig,
        total_steps: int,
        seed: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.config = model
        self.loss = loss
        self.version = 0
        """Optimizer steps done, those counted too that were skipped."""
        if model.threads is not None:
            torch.set_num_threads(model.threads)
        self.device = pick_device(model, distributed.local_rank())
        require_memory(self.folder, model, self.device)
        torch.manual_seed(seed)
        self.model = load_model(self.folder, model, seed)
        self.root = PackModel(self.model)
        masters = self._place()
        self.optimizer = Optimizer(self.root, masters, optimizer, total_steps)
        self._master_of = {id(p): masters[n] for n, p in self.root.named_parameters() if n in masters}

    def _place(self) -> dict[str, torch.nn.Parameter]:
        """Puts the model on its device, checks that packs are exact, and returns the float32 masters."""
        dtype = compute_dtype(self.config)
        if distributed.world_size() == 1:
            self.root.to(self.device)
            masters = split_masters(self.root, dtype)
            check_packing(self.model, tolerance=TOLERANCES[dtype])
            return masters
        if distributed.rank() == 0:  # of the whole model, before it is in shards
            check_packing(self.model, tolerance=TOLERANCES[dtype if self.config.lora else torch.float32])
        distributed.shard(self.root, list(base_model(self.model).get_decoder().layers), dtype, self.device)
        self.root.to(self.device)  # buffers
        return split_masters(self.root, torch.float32)

    def step(self, samples: list[Sample]) -> dict[str, float]:
        """One optimizer step on all `samples`, whose advantages are set. All ranks are given the same samples.

        Every pack is one forward and backward. Samples whose loss is 0 whatever the policy (advantage 0, no KL term)
        are not run, but count in the denominator. A gradient that is not finite is not applied: `skipped` is 1.

        Metrics: `loss`, `grad_norm` (before clipping), `lr`, `skipped`; `trained_tokens`, `tokens`, `samples`, `packs`
        as they were run; means over the trained tokens: `entropy` (nats), `mismatch_kl`, `ratio`, `log_ratio_abs`,
        `clipped`, `clipped_high`, `clipped_low`, and the same under `root/` and `sub/` where there are such samples;
        `seconds/forward`, `seconds/backward`, `seconds/update`, of which on a GPU only the sum is exact.

        Raises ValueError, before anything is changed, on a sample longer than a pack and where nothing is trained.
        """
        denominator = loss_denominator(samples, self.loss)
        run = [sample for sample in samples if sample.trained_tokens and (sample.advantage or self.loss.kl_tau)]
        packs = [self._collate(pack) for pack in distributed.share(run, self.config.pack_tokens)]
        fillers = sum(distributed.is_filler(pack.samples) for pack in packs)
        sums: dict[str, Tensor] = {}
        seconds = dict.fromkeys(("forward", "backward", "update"), 0.0)
        self.optimizer.clear()  # of what a step left that was broken off
        for pack in packs:
            start = time.perf_counter()
            pack = pack.to(self.device)
            loss = self._pack_loss(pack, self.root(pack), denominator, sums)
            middle = time.perf_counter()
            loss.backward()
            seconds["forward"] += middle - start
            seconds["backward"] += time.perf_counter() - middle
        start = time.perf_counter()
        update = self.optimizer.step(self.version)
        self.version += 1
        metrics = self._metrics(sums, len(packs) - fillers)
        seconds["update"] = time.perf_counter() - start
        return {
            **metrics,
            "grad_norm": update.grad_norm,
            "lr": update.lr,
            "skipped": float(not update.applied),
            "tokens": float(sum(map(len, run))),
            "samples": float(len(run)),
            **{f"seconds/{phase}": value for phase, value in seconds.items()},
        }

    def _collate(self, samples: list[Sample]) -> Pack:
        pack = collate(samples)
        vocab = self.model.get_input_embeddings().num_embeddings
        if int(pack.input_ids.max()) >= vocab or int(pack.input_ids.min()) < 0:
            raise ValueError(
                f"a sample of rollout {_foreign(samples, vocab).rollout_id!r} has token ids outside of the model's "
                f"vocabulary of {vocab:,}: it was sampled from another model"
            )
        return pack

    def _pack_loss(self, pack: Pack, found: TokenLogprobs, denominator: float, sums: dict[str, Tensor]) -> Tensor:
        """The pack's share of the step's loss; adds its metrics to `sums`."""
        advantages = pack.spread([sample.advantage for sample in pack.samples])
        total = found.logprobs.new_zeros(())
        for kind in SampleKind:
            of_kind = [float(sample.kind == kind) for sample in pack.samples]
            if not any(of_kind):
                continue
            mask = pack.mask & pack.spread(of_kind).bool()
            loss, metrics = policy_loss(
                found.logprobs,
                pack.behavior_logprobs,
                advantages,
                mask,
                self.loss,
                pack.sequence_ids,
                pack.weights,
            )
            total = total + loss / denominator
            if distributed.is_filler(pack.samples):
                continue
            metrics["entropy"] = found.entropy[mask].sum()
            metrics["loss"] = loss.detach() / denominator
            for name, value in metrics.items():
                key = f"{kind}/{name}"
                sums[key] = sums[key] + value if key in sums else value
        return total

    def _metrics(self, sums: dict[str, Tensor], packs: int) -> dict[str, float]:
        """Sums by kind, of this process, to the step's metrics."""
        keys = [f"{kind}/{name}" for kind in SampleKind for name in ("tokens", "loss", *_MEANS)]
        mine = {key: float(sums.get(key, 0.0)) for key in keys}
        found = distributed.sum_over_processes({**mine, "packs": float(packs)})
        metrics = {"loss": sum(found[f"{kind}/loss"] for kind in SampleKind), "packs": found["packs"]}
        for prefix, kinds in {"": tuple(SampleKind), **{f"{kind}/": (kind,) for kind in SampleKind}}.items():
            tokens = sum(found[f"{kind}/tokens"] for kind in kinds)
            metrics[f"{prefix}trained_tokens"] = tokens
            if tokens:
                for name in _MEANS:
                    metrics[prefix + name] = sum(found[f"{kind}/{name}"] for kind in kinds) / tokens
        return metrics

    @torch.no_grad()
    def score(self, samples: list[Sample]) -> list[list[float]]:
        """Log-probabilities of the trained tokens of each sample, in order, at the sample's temperature."""
        samples = [copy.copy(sample) for sample in samples]  # so that each is an object of its own, to be found again
        place = {id(sample): index for index, sample in enumerate(samples)}
        mine: dict[int, list[float]] = {}
        for pack_samples in distributed.share(samples, self.config.pack_tokens):
            pack = self._collate(pack_samples).to(self.device)
            logprobs = self.root(pack).logprobs
            if distributed.is_filler(pack_samples):
                continue
            for number, sample in enumerate(pack_samples):
                mine[place[id(sample)]] = logprobs[pack.mask & (pack.sequence_ids == number)].tolist()
        if distributed.world_size() > 1:
            self.root.reshard()  # which the backward would have done
        found: dict[int, list[float]] = {}
        for part in distributed.gather(mine):
            found |= part
        return [found[index] for index in range(len(samples))]

    def export(self, folder: Path) -> None:
        """Writes the weights, in the type of the forward and with an adapter merged in, as a Hugging Face folder
        that an engine serves. The folder appears at once and replaces one that is there."""
        leads = distributed.rank() == 0
        weights = {}
        for name, weight in merged_weights(self.model, self._exact):  # which all ranks must put together
            if leads:
                weights[name] = weight.to(compute_dtype(self.config)).cpu()
        if leads:
            with atomic_folder(Path(folder), durable=False) as unfinished:
                write_model(self.model, weights, self.folder, unfinished)
        distributed.barrier()

    def export_adapter(self, folder: Path) -> None:
        """Writes the adapter alone as peft does, in float32. Raises ValueError without `trainer.lora`."""
        if self.config.lora is None:
            raise ValueError("there is no adapter to export: trainer.lora is not set")
        exact = {name: self._exact(p).cpu() for name, p in self.model.named_parameters() if p.requires_grad}
        if distributed.rank() == 0:
            with atomic_folder(Path(folder), durable=False) as unfinished:
                self.model.save_pretrained(unfinished, state_dict=exact)
                (unfinished / "README.md").unlink()  # a model card without content
        distributed.barrier()

    def save(self, folder: Path) -> None:
        """Writes all that the learner is into a folder that exists: masters, moments, random state, version."""
        folder = Path(folder)
        with _quietly():
            dcp.save(self.optimizer.state(), checkpoint_id=folder / "tensors")
        torch.save(_random_state(), folder / f"random-{distributed.rank()}.pt")
        if distributed.rank() == 0:
            (folder / _STATE).write_text(json.dumps({"version": self.version, "lora": self._lora()}), "utf-8")
        distributed.barrier()

    def load(self, folder: Path) -> None:
        """Goes back to what `save` wrote, to the bit; on another number of processes, the same weights.

        The model's own weights under an adapter are not in there: they are those of `self.folder`.
        Raises ValueError where the adapter was another.
        """
        folder = Path(folder)
        state = json.loads((folder / _STATE).read_text("utf-8"))
        if state["lora"] != self._lora():
            raise ValueError(f"{folder} was saved with trainer.lora = {state['lora']}, this run has {self._lora()}")
        with _quietly():
            dcp.load(self.optimizer.state(), checkpoint_id=folder / "tensors")
        self.optimizer.refresh()
        random_state = folder / f"random-{distributed.rank()}.pt"
        if random_state.is_file():
            _set_random_state(torch.load(random_state, weights_only=True))
        self.version = state["version"]

    def _lora(self) -> dict[str, Any] | None:
        return self.config.lora.model_dump(mode="json") if self.config.lora else None

    def _exact(self, parameter: Tensor) -> Tensor:
        """The whole float32 tensor of a parameter that is trained; one that is not, as it is."""
        return distributed.whole(self._master_of.get(id(parameter), parameter).detach())


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warning that there is one process only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _foreign(samples: list[Sample], vocab: int) -> Sample:
    return next(sample for sample in samples if not all(0 <= token < vocab for token in sample.token_ids))


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
