"""The policy as the trainer holds it: a Hugging Face causal language model, whole or under a LoRA adapter.

Covered: loading from a folder, the type of forward and backward, dropout off, gradient checkpointing, adapters, the
module that takes packs; the weights as a folder that an engine serves. Not covered: how much memory that needs
(`memory.py`), float32 master weights (`optimizer.py`), several processes (`distributed.py`).
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlm_env.train.learner.config import LoraConfig, ModelConfig
from rlm_env.train.learner.forward import pack_logprobs
from rlm_env.train.learner.logprobs import TokenLogprobs
from rlm_env.train.learner.packing import Pack

_NOT_COPIED = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".md", ".lock"}
"""Endings of files in a model folder that are the old weights or describe them."""


class ModelError(ValueError):
    """The model cannot be trained as asked."""


class PackModel(nn.Module):
    """A causal language model whose forward takes a pack: the log-probabilities of its trained tokens, each at the
    temperature of its sample. One forward for everything, so that sharding finds one root module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pack: Pack) -> TokenLogprobs:
        return pack_logprobs(self.model, pack, pack.spread([sample.temperature for sample in pack.samples]))


def compute_dtype(config: ModelConfig) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]


def pick_device(config: ModelConfig, local_rank: int = 0) -> torch.device:
    """Raises ModelError where CUDA is asked for and not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError('trainer.device = "cuda", but torch finds no CUDA device; use "auto" or "cpu"')
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def read_config(folder: Path, config: ModelConfig) -> Any:
    """The model's own configuration, without any dropout: behavior log-probabilities were sampled without."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model folder: it has no config.json")
    model_config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for part in {id(part): part for part in (model_config, model_config.get_text_config())}.values():
        for name, value in part.to_dict().items():
            if isinstance(value, float) and name.endswith(("dropout", "_drop", "_pdrop", "dropout_prob")):
                setattr(part, name, 0.0)
    return model_config


def load_model(folder: Path, config: ModelConfig, seed: int = 0) -> nn.Module:
    """The model in `folder` on the CPU, in training mode, its trainable parameters in float32.

    With `config.lora` the weights are frozen in the type of the forward and an adapter is laid over them, which
    `seed` draws and which changes nothing yet. Raises ModelError where the folder is no model, lacks weights, or
    the adapter fits nothing.
    """
    from transformers import AutoModelForCausalLM

    with _quietly():
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=read_config(folder, config),
            dtype=compute_dtype(config) if config.lora else torch.float32,
            attn_implementation=config.attention,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}: they would be random numbers"
        )
    if config.lora:
        model = add_adapter(model, config.lora, seed)
    if config.gradient_checkpointing:
        with _quietly():
            base_model(model).gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def add_adapter(model: nn.Module, config: LoraConfig, seed: int) -> nn.Module:
    """The model under a fresh adapter in float32, its own weights frozen."""
    import peft

    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with _quietly():
                adapted = peft.get_peft_model(model, settings, autocast_adapter_dtype=False)
        except ValueError as error:
            raise ModelError(f"trainer.lora.targets = {config.targets!r}: {error}") from error
    for name, module in lora_layers(adapted).items():
        if not isinstance(module.get_base_layer(), nn.Linear):
            raise ModelError(f"trainer.lora.targets: {name} is a {type(module.get_base_layer()).__name__}, not linear")
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def base_model(model: nn.Module) -> Any:
    """The Hugging Face model, also where an adapter lies over it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers by their name in the Hugging Face model; {} without an adapter."""
    base = base_model(model)
    return {} if base is model else {n: m for n, m in base.named_modules() if hasattr(m, "lora_A")}


def merged_weights(model: nn.Module, exact: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The model's weights and their names without an adapter; with one, W + scaling B A. Tied weights come once.

    `exact`: gives the whole tensor of a parameter, in float32 if it is trained.
    """
    layers = lora_layers(model)
    for name, parameter in base_model(model).named_parameters():
        if ".lora_" in name:
            continue
        weight = exact(parameter)
        layer = layers.get(name.removesuffix(".base_layer.weight")) if name.endswith(".base_layer.weight") else None
        if layer is not None:
            (adapter,) = layer.active_adapters
            up, down = exact(layer.lora_B[adapter].weight), exact(layer.lora_A[adapter].weight)
            weight = weight.float() + layer.scaling[adapter] * (up @ down)
        yield name.replace(".base_layer.", "."), weight


def write_model(model: nn.Module, weights: dict[str, Tensor], source: Path, folder: Path) -> None:
    """A Hugging Face folder that an engine serves: the weights, the configuration, and from `source`, where the
    model came from, everything else: tokenizer, chat template, generation defaults, `rlm_env.json`."""
    base = base_model(model)
    kept = base.config.dtype
    base.config.dtype = next(iter(weights.values())).dtype
    try:
        with _quietly():
            base.save_pretrained(folder, state_dict=weights)
    finally:
        base.config.dtype = kept
    copy_side_files(source, folder)


def copy_side_files(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        wanted = path.is_file() and path.suffix not in _NOT_COPIED and not path.name.endswith(".index.json")
        if wanted and path.name != "config.json" and not path.name.startswith((".", "adapter_")):
            shutil.copyfile(path, folder / path.name)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars, and without warnings of names that the oldest transformers allowed does not have."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
