"""The learner: samples with advantages in, one optimizer step out; on one process or many.

It also scores samples, exports weights as a folder for an engine, and saves and loads its own state. It knows nothing
of rollouts and engines (`rl/trainer.py` and `sync/` do).
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from rlm_env.train.learner import distributed
from rlm_env.train.learner.adapter import merged_weights, write_adapter
from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.cost import Cost
from rlm_env.train.learner.disk import torch_disk_errors, weights_folder
from rlm_env.train.learner.forward import decoder_layers, input_embeddings
from rlm_env.train.learner.loading import empty_model, fill
from rlm_env.train.learner.logprobs import TokenLogprobs
from rlm_env.train.learner.loss import distilled_advantages, loss_denominator, sample_weights, token_losses
from rlm_env.train.learner.memory import require_memory
from rlm_env.train.learner.model import (
    PackModel,
    compile_layers,
    compute_dtype,
    load_model,
    persistent_buffers,
    pick_device,
    require_finite,
    write_model,
)
from rlm_env.train.learner.optimizer import Optimizer, split_masters
from rlm_env.train.learner.packing import Pack, collate
from rlm_env.train.learner.packing_check import TOLERANCES, choose_packing, shallow_copy
from rlm_env.train.learner.reference import Reference
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.step_metrics import StepMetrics, performance
from rlm_env.train.learner.tree_packing import takes_trees
from rlm_env.train.learner.weight_stream import WeightStream

_STATE = "learner.json"
_SUPERVISED = LossConfig(preset="sft")


class Learner:
    """Owns model, optimizer, schedule and random state.

    `folder`: the initial model, which is not changed. `total_steps`: the end of the schedule. `seed`: for the adapter
    and the random state. On several processes (`distributed.process_group`) every method must be called on all of
    them with equal arguments (as `distributed.leading` and `follow` do); the result is the same as on one.

    The constructor raises ModelError if the model does not fit into memory, and PackingError if training would not be
    exact (`packing_check.py`).
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
        """Number of optimizer steps so far, including skipped ones."""
        self.skipped = 0
        """Steps in a row, up to the newest, whose gradient was not finite and was not applied."""
        self.packed = True
        """Whether samples share packs; see `ModelConfig.packing`."""
        self.shares = False
        """Whether packs can be trees."""
        if model.threads is not None:
            torch.set_num_threads(model.threads)
        self.device = pick_device(model, distributed.local_rank())
        require_memory(self.folder, model, self.device, reference=bool(loss.kl_weight))
        torch.manual_seed(seed)
        alone = distributed.world_size() == 1
        self.model = load_model(self.folder, model, seed) if alone else empty_model(self.folder, model, seed)
        self.root = PackModel(self.model)
        masters = self._place(seed)
        if model.compile:
            compile_layers(self.model)
        self.optimizer = Optimizer(self.root, masters, optimizer, total_steps)
        self._master_of = {id(p): masters[n] for n, p in self.root.named_parameters() if n in masters}
        self.reference = Reference(self.root, self.folder, model, self.device) if loss.kl_weight else None
        self.cost = Cost.of_model(self.model)

    def _place(self, seed: int) -> dict[str, torch.nn.Parameter]:
        """Moves the model to its device, checks that packing is exact, and returns the float32 masters. On several
        processes the model has no values before it is sharded."""
        dtype = compute_dtype(self.config)
        if distributed.world_size() == 1:
            self.root.to(self.device)
            masters = split_masters(self.root, dtype)
            self.packed, self.shares = self._checked(self.model, dtype)
            return masters
        found = None
        if distributed.rank() == 0:  # before sharding; of few layers, since a device need not hold the whole model
            few = shallow_copy(self.model)
            fill(few, self.folder, self.config, self.device, seed)
            found = self._checked(few.to(dtype), dtype)
        self.packed, self.shares = distributed.gather(found)[0]
        distributed.shard(self.root, list(decoder_layers(self.model)), dtype, self.device)
        fill(self.model, self.folder, self.config, self.device, seed)
        self.root.to(self.device)  # buffers
        return split_masters(self.root, torch.float32)

    def _checked(self, model: torch.nn.Module, dtype: torch.dtype) -> tuple[bool, bool]:
        """See `choose_packing`."""
        return choose_packing(model, self.config, self.device.type, TOLERANCES[dtype])

    def step(
        self, samples: list[Sample], supervised: Sequence[Sample] = (), supervised_weight: float = 1.0
    ) -> dict[str, float]:
        """One optimizer step on all `samples`, whose advantages are set, and on `supervised` ones beside them.

        The loss is that of `samples`, plus `supervised_weight` times the mean negative log-likelihood of the trained
        tokens of `supervised`.

        Every pack is one forward and backward, and with `loss.kl_weight` a forward of the reference. Samples whose loss
        is always 0 (advantage 0, no KL term, no teacher) are not run, but count in the denominator. A gradient that is
        not finite is not applied: `skipped` is then 1.

        Metrics: `grad_norm` (before clipping), `lr`, `skipped`; `tokens`, `samples` and `packs` that were run;
        `loss`; with `supervised`, `supervised/loss`, which is that mean, and `supervised/trained_tokens`;
        `tokens_computed`, and `tree_token_share`, their share of `tokens`: below 1 where packs are trees;
        `seconds/forward`, `seconds/backward`, `seconds/update`, of which on a GPU only the sum is exact; and those of
        `StepMetrics.collect` and `performance`.

        Raises ValueError, before anything is changed, on a sample longer than a pack and if nothing is trained.
        """
        begun = time.perf_counter()
        parts = [self._policy_part(samples)]
        if supervised:
            parts.append(_supervised_part(supervised, supervised_weight))
        run = [sample for part in parts for sample in part.run]
        packs = [(part, pack) for part in parts for pack in self._packs(part.run, part.weights)]
        real = [pack for _, pack in packs if not distributed.is_filler(pack.samples)]
        seconds = dict.fromkeys(("forward", "backward", "update"), 0.0)
        self.optimizer.clear()  # gradients of an earlier step that was interrupted
        for part, pack in packs:
            start = time.perf_counter()
            pack = pack.to(self.device)
            reference = self.reference.logprobs(pack) if self.reference and part.loss.kl_weight else None
            loss = self._pack_loss(pack, self.root(pack), part, reference)
            middle = time.perf_counter()
            loss.backward()
            seconds["forward"] += middle - start
            seconds["backward"] += time.perf_counter() - middle
        start = time.perf_counter()
        update = self.optimizer.step(self.version)
        self.version += 1
        self.skipped = 0 if update.applied else self.skipped + 1
        metrics = parts[0].seen.collect()
        for part in parts[1:]:
            found = part.seen.collect()
            metrics["loss"] += found["loss"]
            metrics["supervised/loss"] = found["loss"] / supervised_weight
            metrics["supervised/trained_tokens"] = found["trained_tokens"]
        layout = self._layout(real, run)
        work = layout.pop("work")
        seconds["update"] = time.perf_counter() - start
        return {
            **metrics,
            **layout,
            "grad_norm": update.grad_norm,
            "lr": update.lr,
            "skipped": float(not update.applied),
            "tokens": float(sum(map(len, run))),
            "samples": float(len(run)),
            **{f"seconds/{phase}": value for phase, value in seconds.items()},
            **performance(sum(map(len, run)), work, time.perf_counter() - begun, self.device),
        }

    def _policy_part(self, samples: list[Sample]) -> _Part:
        """All samples of a step that have advantages."""
        weights = dict(zip(map(id, samples), sample_weights(samples, self.loss), strict=True))
        every = self.loss.kl_tau or self.loss.kl_weight
        run = [s for s in samples if s.trained_tokens and (every or s.advantage or s.teacher_weight)]
        taught = any(sample.teacher_logprobs is not None for sample in samples)
        further = {"kl": self.reference is not None, "teacher_kl": taught}
        seen = StepMetrics(samples, [name for name, here in further.items() if here])
        return _Part(self.loss, loss_denominator(samples, self.loss), run, weights, seen)

    def _layout(self, packs: list[Pack], run: list[Sample]) -> dict[str, float]:
        """How many packs and computed tokens there were on all processes, and the work that they were."""
        mine = {
            "packs": float(len(packs)),
            "tokens_computed": float(sum(pack.computed for pack in packs)),
            "work": sum(map(self.cost.of_pack, packs)),
        }
        done = distributed.sum_over_processes(mine)
        return {**done, "tree_token_share": done["tokens_computed"] / sum(map(len, run)) if run else 1.0}

    def _packs(self, samples: list[Sample], weights: dict[int, float] | None = None) -> list[Pack]:
        """This process's packs of the samples. `weights`: by sample; None: each sample's own."""
        as_trees = self.shares and takes_trees(self.config, samples)
        on_card = self.device.type == "cuda"
        parts = distributed.share(samples, self.config.pack_tokens, self.packed, self.cost.of, as_trees, on_card)
        return [self._collate(part, weights, as_trees) for part in parts]

    def _collate(self, samples: list[Sample], weights: dict[int, float] | None = None, as_tree: bool = False) -> Pack:
        """The tensors of a pack; ValueError for ids outside of the vocabulary. `weights`: by sample, 0 for those that
        are not in it; None: each sample's own."""
        own = None if weights is None else [weights.get(id(sample), 0.0) for sample in samples]
        pack = collate(samples, own, as_tree)
        vocab = input_embeddings(self.model).num_embeddings
        if int(pack.input_ids.max()) >= vocab or int(pack.input_ids.min()) < 0:
            foreign = _out_of_vocabulary(samples, vocab)
            raise ValueError(
                f"a sample of rollout {foreign.rollout_id!r} has token ids outside of the model's "
                f"vocabulary of {vocab:,}: it was sampled from another model"
            )
        return pack

    def _pack_loss(
        self,
        pack: Pack,
        found: TokenLogprobs,
        part: _Part,
        reference: Tensor | None = None,
    ) -> Tensor:
        """The pack's share of the step's loss; its metrics go to `part.seen`. `reference`: see `Reference.logprobs`."""
        at = pack.trained
        teacher = pack.teacher_logprobs[at]
        losses, metrics = token_losses(
            found.logprobs[at],
            pack.behavior_logprobs[at],
            distilled_advantages(found.logprobs[at], pack.advantages[at], teacher, pack.teacher_weights[at]),
            part.loss,
            pack.sequence_ids[at],
            len(pack.samples),
            None if reference is None else reference[at],
        )
        metrics["teacher_kl"] = found.logprobs[at].detach() - teacher
        losses = losses * (pack.weights[at].to(losses.dtype) / part.denominator)
        if not distributed.is_filler(pack.samples):
            part.seen.add(pack, losses.detach(), found.entropy[at], metrics)
        return losses.sum()

    @torch.no_grad()
    def score(self, samples: list[Sample]) -> list[list[float]]:
        """For each sample, the log-probabilities of its trained tokens at its temperature."""
        samples = [copy.copy(sample) for sample in samples]  # distinct objects, even if one sample is given twice
        place = {id(sample): index for index, sample in enumerate(samples)}
        mine: dict[int, list[float]] = {}
        for pack in self._packs(samples):
            pack = pack.to(self.device)
            values = self.root(pack).logprobs[pack.trained].tolist()
            if distributed.is_filler(pack.samples):
                continue
            for sample in pack.samples:
                mine[place[id(sample)]], values = values[: sample.trained_tokens], values[sample.trained_tokens :]
        distributed.reshard(self.root)
        found: dict[int, list[float]] = {}
        for part in distributed.gather(mine):
            found |= part
        return [found[index] for index in range(len(samples))]

    def export(self, folder: Path) -> None:
        """Writes the weights, in the type of the forward and with an adapter merged in, as a Hugging Face folder that
        an engine can serve. The folder appears atomically and replaces an existing one. Raises RunStopped where
        weights are not finite, and where the disk refuses."""
        leads = distributed.rank() == 0
        weights = {}
        for name, weight in merged_weights(self.model, self._exact):  # collective: on every rank
            if leads:
                weights[name] = weight.to(compute_dtype(self.config)).cpu()
        if leads:
            require_finite(weights, self.version)
            weights |= {name: buffer.cpu() for name, buffer in persistent_buffers(self.model).items()}
            with weights_folder(Path(folder)) as unfinished:
                write_model(self.model, weights, self.folder, unfinished)
        distributed.barrier()

    def hand_over(self, take: Callable[[WeightStream], None]) -> None:
        """Calls `take`, on every process, with the weights that `export` would write."""
        take(WeightStream(self.model, self._exact, compute_dtype(self.config)))

    def export_adapter(self, folder: Path) -> None:
        """Writes the adapter alone in peft's format, in float32. Raises ValueError without `trainer.lora`, and
        RunStopped where weights are not finite, and where the disk refuses."""
        if self.config.lora is None:
            raise ValueError("no adapter to export: trainer.lora is not set")
        exact = {name: self._exact(p).cpu() for name, p in self.model.named_parameters() if p.requires_grad}
        if distributed.rank() == 0:
            require_finite(exact, self.version)
            with weights_folder(Path(folder)) as unfinished:
                write_adapter(self.model, exact, unfinished)
        distributed.barrier()

    def save(self, folder: Path) -> None:
        """Writes the whole state (masters, moments, random state, version, skipped steps) into an existing folder.
        Raises OSError where the disk refuses."""
        folder = Path(folder)
        with _quietly(), torch_disk_errors():
            save_tensors(self.optimizer.state(), checkpoint_id=folder / "tensors")
            torch.save(_random_state(), folder / f"random-{distributed.rank()}.pt")
        if distributed.rank() == 0:
            state = {"version": self.version, "skipped": self.skipped, "lora": self._lora()}
            (folder / _STATE).write_text(json.dumps(state), "utf-8")
        distributed.barrier()

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote, to the bit; on another number of processes, all but the random state.

        Frozen weights under an adapter are not saved: they are those of `self.folder`. Raises ValueError if
        `trainer.lora` has changed, and OSError where a file cannot be read.
        """
        folder = Path(folder)
        state = json.loads((folder / _STATE).read_text("utf-8"))
        if state["lora"] != self._lora():
            raise ValueError(f"{folder} was saved with trainer.lora = {state['lora']}, this run has {self._lora()}")
        with _quietly(), torch_disk_errors():
            load_tensors(self.optimizer.state(), checkpoint_id=folder / "tensors")
        self.optimizer.refresh()
        random_state = folder / f"random-{distributed.rank()}.pt"
        if random_state.is_file():
            _set_random_state(torch.load(random_state, weights_only=True))
        self.version, self.skipped = state["version"], state.get("skipped", 0)

    def _lora(self) -> dict[str, Any] | None:
        return self.config.lora.model_dump(mode="json") if self.config.lora else None

    def _exact(self, parameter: Tensor) -> Tensor:
        """The full float32 tensor of a trained parameter; a frozen one in its own type."""
        return distributed.whole(self._master_of.get(id(parameter), parameter).detach())


@dataclass(frozen=True, slots=True)
class _Part:
    """The samples of a step that have one loss."""

    loss: LossConfig
    denominator: float
    """What the sum of their losses is divided by."""
    run: list[Sample]
    """Those that take part in forward and backward."""
    weights: dict[int, float]
    """Of each token, by the `id` of its sample."""
    seen: StepMetrics


def _supervised_part(samples: Sequence[Sample], weight: float) -> _Part:
    """Samples whose likelihood is trained, whatever their advantages."""
    weights = dict(zip(map(id, samples), sample_weights(samples, _SUPERVISED), strict=True))
    denominator = loss_denominator(samples, _SUPERVISED) / weight
    return _Part(_SUPERVISED, denominator, list(samples), weights, StepMetrics(samples))


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppresses torch's warning that there is only one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _out_of_vocabulary(samples: list[Sample], vocab: int) -> Sample:
    return next(sample for sample in samples if not all(0 <= token < vocab for token in sample.token_ids))


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
