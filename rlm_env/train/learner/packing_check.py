"""A check, made once before training, that packing is exact for a given model, and whether it can be packed at all.

Samples of a pack must not affect each other, and a pack must give the log-probabilities and gradients of its samples
run one at a time through the model's own forward. This finds models whose state leaks from sample to sample
(convolutions, linear attention, state-space layers), attention implementations that do not keep samples apart, models
that see later tokens, as some do that compute their attention themselves and wait for a mask, and heads that are more
than one matrix product (soft-capped or scaled logits). Not covered: whether the engine agrees with the model
(`sync/sync_check.py`).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlm_env.train.learner.attention import AttentionError
from rlm_env.train.learner.config import ModelConfig
from rlm_env.train.learner.forward import (
    UNSUPPORTED,
    base_model,
    decoder_layers,
    input_embeddings,
    last_hidden_state,
    pack_logprobs,
    unsupported,
    vocabulary_head,
)
from rlm_env.train.learner.packing import Pack, collate
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.tree import tree_order
from rlm_env.train.learner.tree_packing import may_be_trees

LENGTHS = (7, 24, 3, 15)
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Largest allowed relative difference between packed and single samples, by the type of the weights: at least ten times
what tiny models with large weights show."""


class PackingError(ValueError):
    """Training on packs, or on single samples, would not be exact for this model."""


class LeakError(PackingError):
    """Samples of a pack affect each other."""


@dataclass(slots=True)
class PackingCheck:
    """The measured differences."""

    leak: float
    """Largest gradient of a sample's log-probabilities with respect to the embeddings of another sample. Exactly 0 if
    samples are kept apart, whatever the precision: unlike a difference of results, rounding cannot hide a leak."""
    future: float
    """Largest gradient of a token's log-probability with respect to the embeddings of itself and of later tokens."""
    head: float
    """Relative distance between the model's own logits and hidden states times head."""
    logprobs: float
    """Relative distance between packed and unpacked log-probabilities."""
    gradients: float
    """The same for the gradient over all parameters."""


Wanted = bool | Literal["auto", "tree"]
"""See `ModelConfig.packing`."""


def can_share(model: nn.Module, wanted: Wanted, tolerance: float) -> bool:
    """Whether packs can be trees, which then need no further check. Raises PackingError if `tree` is wanted and would
    not be exact."""
    try:
        check_packing(model, tolerance=tolerance, as_tree=True)
        return True
    except PackingError:
        if wanted == "tree":
            raise
        return False


def can_pack(model: nn.Module, wanted: Wanted, tolerance: float) -> bool:
    """Whether to train on packs (`ModelConfig.packing`). With `auto`, a model whose state leaks from sample to sample
    is trained on single samples. Raises PackingError if training would not be exact."""
    if wanted is not False:
        try:
            check_packing(model, tolerance=tolerance)
            return True
        except LeakError as error:
            if wanted is True:
                raise
            warnings.warn(f"{error}. Training one sample at a time instead (trainer.packing).", stacklevel=2)
    check_packing(model, tolerance=tolerance, together=False)
    return False


def choose_packing(model: nn.Module, config: ModelConfig, device_type: str, tolerance: float) -> tuple[bool, bool]:
    """Whether samples can share packs, and whether packs can be trees, on a device of this type. Raises PackingError
    if training would not be exact either way."""
    if may_be_trees(config, device_type) and can_share(model, config.packing, tolerance):
        return True, True
    return can_pack(model, config.packing, tolerance), False


def shallow_copy(model: nn.Module) -> nn.Module:
    """A copy with the fewest first layers among which every kind of layer occurs. It packs as the whole model does, and
    fits a device that the whole model does not."""
    decoder, layers = base_model(model).get_decoder(), decoder_layers(model)
    decoder.layers = layers[: kinds_until(layers, decoder.config)]
    try:
        return copy.deepcopy(model)
    finally:
        decoder.layers = layers


def kinds_until(layers: nn.ModuleList, model_config: Any) -> int:
    """The number of first layers among which every kind of layer occurs."""
    types = getattr(model_config, "layer_types", None) or [None] * len(layers)
    kinds = [(kind, *map(type, layer.modules())) for kind, layer in zip(types, layers, strict=False)]
    return max(map(kinds.index, kinds)) + 1


def check_packing(
    model: nn.Module,
    temperature: float = 1.0,
    tolerance: float | None = None,
    seed: int = 0,
    together: bool = True,
    as_tree: bool = False,
) -> PackingCheck:
    """Raises PackingError if samples of a pack affect each other, or a pack differs from its samples one at a time.
    Without `together` each sample is a pack, and only the learner's forward is compared with the model's own.
    `as_tree`: of samples that share, extend and repeat what others begin with, in one tree; those with common tokens
    affect each other in these alone.

    `temperature`: the one of training. `tolerance`: by default that of the weights' type (`TOLERANCES`). The model must
    have no gradients, and has none afterwards; its mode and the global random state are unchanged. Costs a few passes
    over 50 tokens, and the memory of one set of gradients.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the model has no trainable parameters")
    if any(parameter.grad is not None for parameter in parameters):
        raise ValueError("the model has gradients already: check it before training, or call zero_grad() first")
    samples = _random_samples(model, seed, as_tree)
    packs = [
        collate(part, as_tree=as_tree).to(parameters[0].device) for part in ([samples] if together else zip(samples))
    ]
    weights = [torch.linspace(0.5, 1.5, sample.trained_tokens).to(parameters[0].device) for sample in samples]
    try:
        with _evaluating(model):
            check = PackingCheck(
                *_foreign_gradients(model, packs[0], temperature),
                _head_difference(model, packs[0].input_ids[:, : LENGTHS[0]]),
                *_differences(model, packs, weights, parameters, temperature),
            )
    except AttentionError as error:
        raise PackingError(str(error)) from error
    except torch.OutOfMemoryError:
        raise
    except (*UNSUPPORTED, RuntimeError) as error:
        raise PackingError(unsupported(type(base_model(model)).__name__, "a forward over a pack", error)) from error
    finally:
        model.zero_grad(set_to_none=True)
    _judge(check, model, tolerance or TOLERANCES.get(parameters[0].dtype, 0.1), as_tree)
    return check


def _judge(check: PackingCheck, model: nn.Module, tolerance: float, as_tree: bool) -> None:
    """Raises PackingError for differences that rounding does not explain."""
    name = type(base_model(model)).__name__
    attention = getattr(getattr(model, "config", None), "_attn_implementation", "unknown")
    if check.leak != 0 and as_tree:
        raise LeakError(
            f"{name} cannot be trained on trees of samples: a sample is affected by tokens that are not its own "
            f"(gradient {check.leak:.2g}), since its state leaks (convolution, linear attention, state space); "
            'trainer.packing = "auto" trains it one sample at a time'
        )
    if check.leak != 0:
        raise LeakError(
            f"{name} cannot be trained on packs: a sample is affected by the samples before it (gradient "
            f"{check.leak:.2g}). Either its state leaks (convolution, linear attention, state space) or its attention "
            f'({attention}) does not keep samples apart; trainer.attention = "sdpa" may, trainer.packing = false does'
        )
    if check.future > 0:  # nan is refused below, by what it is
        raise PackingError(
            f"{name} cannot be trained: a token's log-probability is affected by later tokens (gradient "
            f"{check.future:.2g}), since it does not attend by {attention!r} but by code of its own, which expects a "
            'mask; trainer.attention = "eager" may be right, else train another architecture'
        )
    if not check.head <= max(1e-5, 2 * torch.finfo(vocabulary_head(model).dtype).eps):  # also refuses nan
        raise PackingError(
            f"{name} cannot be trained: its head is more than one matrix product, such as scaled or capped "
            f"logits (relative difference {check.head:.2g}); train another architecture"
        )
    for what, difference in (("log-probabilities", check.logprobs), ("gradients", check.gradients)):
        if not difference <= tolerance:
            raise PackingError(
                f"{name} cannot be trained: its {what} differ by {difference:.2g} (relative; at most {tolerance:g}) "
                f"from those of the model's own forward on one sample at a time. Its attention ({attention}) may treat "
                "packs wrongly; train another architecture, or in a wider type if this is rounding"
            )


def _foreign_gradients(model: nn.Module, pack: Pack, temperature: float) -> tuple[float, float]:
    """The largest gradient of a sample with respect to embeddings that are not its own, and of a token of the first one
    with respect to its own and later ones."""
    embedded: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_(True))
        return embedded[-1]

    handle = input_embeddings(model).register_forward_hook(keep)
    try:
        logprobs = pack_logprobs(model, pack, temperature).logprobs
    finally:
        handle.remove()
    largest = 0.0
    for index in range(len(pack.samples)):
        own = pack.sequence_ids == index
        foreign = torch.ones(pack.computed, dtype=torch.bool, device=own.device)
        foreign[own.nonzero()[:, 0] if pack.tree is None else pack.tree.places[own]] = False
        if foreign.any():
            (gradient,) = torch.autograd.grad(logprobs[own].sum(), embedded[0], retain_graph=True)
            largest = max(largest, gradient[0, foreign].abs().max().item())
    first = (pack.sequence_ids == 0).nonzero()[:, 0]
    later = first[len(first) // 2 :]
    (gradient,) = torch.autograd.grad(logprobs[later[0]], embedded[0])
    return largest, gradient[0, later if pack.tree is None else pack.tree.places[later]].abs().max().item()


@torch.no_grad()
def _head_difference(model: nn.Module, ids: Tensor) -> float:
    """How far the model's own logits are from hidden states times head, relative."""
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    own = model(input_ids=ids, use_cache=False).logits[0]
    plain = last_hidden_state(model, ids, positions)[0] @ vocabulary_head(model).T
    return (torch.linalg.vector_norm(plain - own) / torch.linalg.vector_norm(own)).item()


def _differences(
    model: nn.Module, packs: list[Pack], weights: list[Tensor], parameters: list[nn.Parameter], temperature: float
) -> tuple[float, float]:
    alone = []
    for sample, weight in zip(chain.from_iterable(pack.samples for pack in packs), weights, strict=True):
        logprobs = _plain_logprobs(model, sample, temperature)
        (logprobs * weight).sum().backward()
        alone.append(logprobs.detach())
    size = _norm(parameters)
    packed = torch.cat([pack_logprobs(model, pack, temperature).logprobs[pack.mask] for pack in packs])
    # With the opposite sign, on top of the gradients of the single samples: their difference needs no second copy.
    (-packed * torch.cat(weights)).sum().backward()
    expected = torch.cat(alone)
    distance = torch.linalg.vector_norm(packed.detach() - expected) / torch.linalg.vector_norm(expected)
    return distance.item(), _norm(parameters) / size if size else math.nan


def _plain_logprobs(model: nn.Module, sample: Sample, temperature: float) -> Tensor:
    """Log-probabilities of the sample's trained tokens from the model's own logits, with nothing packed."""
    device = next(model.parameters()).device
    ids = torch.tensor(sample.token_ids, device=device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    chosen = torch.log_softmax(exact[:-1], dim=-1).gather(1, ids[1:, None])[:, 0]
    return chosen[torch.tensor(sample.mask[1:], device=device)]


def _random_samples(model: nn.Module, seed: int, as_tree: bool) -> list[Sample]:
    """Samples of unequal lengths. For a tree one goes on where another ends, one leaves it, and one is there twice."""
    generator = torch.Generator().manual_seed(seed)
    vocab = input_embeddings(model).num_embeddings
    found = [torch.randint(vocab, (length,), generator=generator).tolist() for length in LENGTHS]
    if as_tree:
        found[1][: LENGTHS[0]] = found[0]
        found[3][:12] = found[1][:12]
        found.append(found[1])
    samples = [Sample(ids, [False] + [True] * (len(ids) - 1), [0.0] * len(ids), "check") for ids in found]
    return tree_order(samples) if as_tree else samples


def _norm(parameters: list[nn.Parameter]) -> float:
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float64) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms)).item() if norms else 0.0


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: dropout would differ from pass to pass."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
