"""LoRA adapters (peft): what they are put on, their first values, and merging them into the weights.

An adapter goes on linear layers, and on the stacked weights of a mixture of experts. Not covered: loading the model
(`model.py`), giving an adapter to an engine (`sync/`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlm_env.train.learner.config import LoraConfig, ModelError
from rlm_env.train.learner.forward import base_model
from rlm_env.train.learner.quietly import quietly


def add_adapter(model: nn.Module, config: LoraConfig, seed: int) -> nn.Module:
    """The model with a new float32 adapter, its own weights frozen. On the meta device it has no values."""
    import peft

    targets = adapter_targets(model, config)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType] - annotated int; peft only divides it by r
        lora_dropout=0.0,
        target_modules=targets.modules,
        target_parameters=targets.parameters,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):  # peft draws values too
        try:
            with quietly(), _names_as_given():
                adapted = peft.get_peft_model(model, settings, autocast_adapter_dtype=False)
        except ValueError as error:
            raise ModelError(f"trainer.lora.targets = {config.targets!r}: {error}") from error
    for name, parameter in base_model(adapted).named_parameters():
        if parameter.is_meta and parameter.requires_grad:
            parameter.data = parameter.data.float()
        elif parameter.requires_grad:
            parameter.data = adapter_start(name, parameter.shape, seed).to(parameter.device)
    return adapted


def adapter_start(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """The values that a parameter of an adapter begins with, in float32: those of B are 0, those of A as in peft. They
    depend on name and seed alone, so that each process can make its own."""
    if ".lora_B." in name:
        return torch.zeros(*shape)
    draw = torch.Generator().manual_seed(int.from_bytes(sha256(f"{seed}/{name}".encode()).digest()[:6]))
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(*shape).uniform_(-bound, bound, generator=draw)


@contextmanager
def _names_as_given() -> Iterator[None]:
    """peft translates names of the linear layers that experts had before their weights were stacked. Layers that still
    have such a name, of dense and shared MLPs, would then be left out, and routers be adapted."""
    from peft.utils import transformers_weight_conversion as conversion

    translate = conversion.convert_peft_config_for_transformers
    conversion.convert_peft_config_for_transformers = lambda *_, **__: None
    try:
        yield
    finally:
        conversion.convert_peft_config_for_transformers = translate


@dataclass(frozen=True, slots=True)
class AdapterTargets:
    """What an adapter is put on, by full names."""

    modules: list[str]
    """Linear layers."""
    parameters: list[str]
    """Stacked weights of experts, [experts, out, in]."""


def adapter_targets(model: nn.Module, config: LoraConfig) -> AdapterTargets:
    """What `config.targets` means in a model without an adapter. Raises ModelError for a name that no layer
    has, and for one of something that cannot be adapted."""
    base: Any = model
    head = base.get_output_embeddings()
    named = dict(model.named_modules())
    linear = [name for name, module in named.items() if isinstance(module, nn.Linear) and module is not head]
    stacked = [name for name, parameter in model.named_parameters() if parameter.ndim == 3 and ".experts." in name]
    if isinstance(config.targets, str):
        return AdapterTargets(linear, stacked)
    for target in config.targets:
        if head is not None and any(_is_named(name, target) for name, module in named.items() if module is head):
            raise ModelError(f"trainer.lora.targets = {config.targets!r}: keep adapters off the head")
        if not any(_is_named(name, target) for name in (*linear, *stacked)):
            other = [type(module).__name__ for name, module in named.items() if _is_named(name, target)]
            names = ", ".join(sorted({name.rpartition(".")[2] for name in (*linear, *stacked)}))
            what = f"{target} is a {other[0]}, which gets no adapter" if other else f"there is no {target}"
            raise ModelError(f"trainer.lora.targets = {config.targets!r}: {what}; known are {names}")
    chosen = [[n for n in names if any(_is_named(n, t) for t in config.targets)] for names in (linear, stacked)]
    return AdapterTargets(*chosen)


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers by the name of the weight in the Hugging Face model; {} without an adapter."""
    base = base_model(model)
    if base is model:
        return {}
    found = {}
    for name, module in base.named_modules():
        if hasattr(module, "lora_A"):
            found[f"{unwrapped_name(name)}.{getattr(module, 'parameter_name', 'weight')}"] = module
    return found


def unwrapped_name(name: str) -> str:
    """A name in the Hugging Face model, from one in the adapted model."""
    return ".".join(part for part in name.split(".") if part != "base_layer")


def merged_weights(model: nn.Module, exact: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The model's weights under their Hugging Face names, with an adapter merged in (W + scaling B A). Tied weights
    appear once.

    `exact`: returns the full tensor of a parameter, in float32 if it is trained.
    """
    layers = lora_layers(model)
    for name, parameter in base_model(model).named_parameters():
        if ".lora_" in name:
            continue
        weight = exact(parameter)
        layer = layers.get(unwrapped_name(name))
        if layer is not None:
            (adapter,) = layer.active_adapters
            up, down = exact(layer.lora_B[adapter].weight), exact(layer.lora_A[adapter].weight)
            weight = weight.float() + layer.scaling[adapter] * _update(weight, up, down)
        yield unwrapped_name(name), weight


def _update(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """B A in the shape of the weight. For stacked experts peft keeps A as [experts * rank, in] and B as
    [out, rank * experts], experts last."""
    if weight.ndim == 2:
        return up @ down
    experts = len(weight)
    found = torch.einsum("ore,eri->eoi", up.view(len(up), -1, experts), down.view(experts, -1, down.shape[1]))
    return found if found.shape == weight.shape else found.transpose(1, 2)


def write_adapter(model: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Writes the adapter alone in peft's format. `weights`: its parameters by name."""
    adapted: Any = model
    adapted.save_pretrained(folder, state_dict=weights)
    (folder / "README.md").unlink()  # an empty model card
