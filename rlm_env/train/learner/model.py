"""The policy in the trainer: a Hugging Face causal language model, trained in full or through a LoRA adapter.

Covered: loading from a folder on one process, the type of forward and backward, dropout off, gradient checkpointing,
the root module, and exporting the weights as a folder that an engine serves. Not covered: adapters (`adapter.py`),
loading on several processes (`loading.py`), memory needs (`memory.py`), float32 master weights (`optimizer.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlm_env.runs.errors import RunStopped
from rlm_env.spelling import near_matches
from rlm_env.train.learner import attention
from rlm_env.train.learner.adapter import AdapterTargets, adapter_targets, add_adapter, unwrapped_name
from rlm_env.train.learner.config import ModelConfig, ModelError
from rlm_env.train.learner.forward import (
    UNSUPPORTED,
    base_model,
    decoder_layers,
    pack_logprobs,
    unsupported,
    vocabulary_head,
)
from rlm_env.train.learner.logprobs import TokenLogprobs
from rlm_env.train.learner.packing import Pack
from rlm_env.train.learner.quietly import quietly

_NOT_COPIED = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".md", ".lock"}
"""Suffixes of files in a model folder that hold the old weights or describe them."""


class PackModel(nn.Module):
    """The root module, whose forward takes a pack and returns the log-probabilities of its trained tokens, each at the
    temperature of its sample. Everything runs through this one forward, as sharding requires."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pack: Pack) -> TokenLogprobs:
        return pack_logprobs(self.model, pack, pack.temperatures)


def compute_dtype(config: ModelConfig) -> torch.dtype:
    """The type of the forward pass."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]


def pick_device(config: ModelConfig, local_rank: int = 0) -> torch.device:
    """Raises ModelError if CUDA is configured but not available."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError('trainer.device = "cuda", but torch finds no CUDA device; use "auto" or "cpu"')
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def read_model_config(folder: Path) -> Any:
    """The Hugging Face configuration with all dropout set to 0, since the behavior log-probabilities had none."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json")
    try:
        model_config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, *UNSUPPORTED) as error:  # an architecture that is unknown here, or broken JSON
        raise ModelError(f"{folder / 'config.json'} cannot be used: {error}") from error
    for part in {id(part): part for part in (model_config, model_config.get_text_config())}.values():
        for name, value in part.to_dict().items():
            if isinstance(value, float) and name.endswith(("dropout", "_drop", "_pdrop", "dropout_prob")):
                setattr(part, name, 0.0)
    return model_config


def load_model(folder: Path, config: ModelConfig, seed: int = 0) -> nn.Module:
    """The model in `folder` on the CPU, in training mode, its trainable parameters in float32.

    With `config.lora` the weights are frozen in the type of the forward under an adapter, which is initialized from
    `seed` and has no effect yet. Raises ModelError if the folder is not a model, lacks weights, or the adapter fits no
    layer.
    """
    return prepare(from_pretrained(folder, config), config, seed)


def from_pretrained(folder: Path, config: ModelConfig, dtype: torch.dtype | None = None) -> Any:
    """The model in `folder` without an adapter. `dtype`: None, as it is trained. Raises ModelError."""
    from transformers import AutoModelForCausalLM

    attention.register()
    try:
        with quietly():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=read_model_config(folder),
                dtype=dtype or _loaded_dtype(config),
                attn_implementation=_implementation(config),
                local_files_only=True,
                output_loading_info=True,
            )
    except (ValueError, ImportError) as error:  # an attention that is unknown, not installed or not for this model
        raise ModelError(f"{folder} cannot be loaded with trainer.attention = {config.attention!r}: {error}") from error
    except UNSUPPORTED as error:
        raise ModelError(_not_built(read_model_config(folder), config, error)) from error
    model, report = loaded
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelError(f"{folder} lacks {lacks(missing)}")
    return model


def lacks(names: list[str]) -> str:
    """What is lacking, in words, where these weights are."""
    return f"{len(names)} of the model's weights, such as {names[0]}: they would be random numbers"


def model_without_values(model_config: Any, config: ModelConfig, dtype: torch.dtype | None = None) -> Any:
    """A model of this (Hugging Face) configuration, wherever parameters are made. `dtype`: None, as it is trained.
    Raises ModelError where it knows no such attention."""
    from transformers import AutoModelForCausalLM

    attention.register()
    try:
        with quietly():
            return AutoModelForCausalLM.from_config(
                model_config, dtype=dtype or _loaded_dtype(config), attn_implementation=_implementation(config)
            )
    except (ValueError, ImportError) as error:
        raise ModelError(f"trainer.attention = {config.attention!r}: {error}") from error
    except UNSUPPORTED as error:
        raise ModelError(_not_built(model_config, config, error)) from error


def _not_built(model_config: Any, config: ModelConfig, error: Exception) -> str:
    """Why a model of this (Hugging Face) configuration cannot be made."""
    name = (model_config.architectures or [model_config.model_type])[0]
    wanted = _implementation(config)
    if isinstance(error, KeyError) and error.args == (wanted,):
        return (
            f"{name} has code of its own in place of the attention that is asked for (trainer.attention = "
            f'{config.attention!r}); "eager" may be right, else train another architecture'
        )
    return unsupported(name, "making it", error)


def prepare(model: Any, config: ModelConfig, seed: int) -> nn.Module:
    """A model as it was loaded, ready to be trained."""
    if config.attention == "auto":
        attention.refuse_masks(model.get_decoder())
    if config.lora:
        model = add_adapter(model, config.lora, seed)
    if config.gradient_checkpointing:
        try:
            with quietly():
                base_model(model).gradient_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise ModelError(f"trainer.gradient_checkpointing: {error}; set it to false") from error
    return model.train()


def _loaded_dtype(config: ModelConfig) -> torch.dtype:
    return compute_dtype(config) if config.lora else torch.float32


def compile_layers(model: nn.Module) -> None:
    """Compiles what each decoder layer has beside attention (norms, MLP), for any number of tokens.

    Not the layer as a whole: attention differs with the lengths of every pack, and around a part that the compiler must
    leave out, a layer that is recomputed in the backward pass falls back to no compilation at all.
    """
    for layer in decoder_layers(model):
        for part in layer.children():
            attends = hasattr(part, "is_causal")
            for module in part.children() if attends else [part]:
                if not attends or module.__class__.__name__.endswith("Norm"):
                    module.compile(dynamic=True)


def check_buildable(model_config: Any, config: ModelConfig) -> AdapterTargets | None:
    """Raises ModelError where a model of this (Hugging Face) configuration knows no such attention, has a head that is
    more than a matrix, or lacks the layers that an adapter, checkpointing or compilation need. Returns what the adapter
    is put on. Allocates nothing. What a pack does to it is in `small_twin.py`."""
    with torch.device("meta"):
        model = model_without_values(model_config, config)
    targets = adapter_targets(model, config.lora) if config.lora else None
    model = prepare(model, config, 0)
    vocabulary_head(model)
    if config.compile:
        decoder_layers(model)
    return targets


def check_attention(config: ModelConfig) -> None:
    """Raises ModelError for a name that no model has as its attention. Needs no model."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = {"auto", "eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()}
    if config.attention not in known and "/" not in config.attention:  # with one it is a kernel of the Hub
        raise ModelError(
            f"trainer.attention = {config.attention!r} is not known{near_matches(config.attention, known)}"
        )


def _implementation(config: ModelConfig) -> str:
    return attention.BY_SAMPLE if config.attention == "auto" else config.attention


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to the weights, such as the routing bias of some mixtures of experts, under their Hugging
    Face names. Buffers that are computed when a model is made are not among them."""
    base = base_model(model)
    saved = base.state_dict().keys()
    return {unwrapped_name(name): b for name, b in base.named_buffers() if name in saved}


def require_finite(weights: Mapping[str, Tensor], step: int) -> None:
    """Raises RunStopped where weights after this step are not finite in the type that they are written in: an
    engine would sample noise from them, and nothing brings them back."""
    broken = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
    if broken:
        raise RunStopped(
            "weights not finite",
            f"{len(broken)} of {len(weights)} weights are not finite after step {step} and were not written; the first "
            f"is {broken[0]}. Begin anew with a lower optimizer.lr, and with optimizer.weight_decay and optimizer.eps "
            "near their defaults",
            1,
        )


def write_model(model: nn.Module, weights: dict[str, Tensor], source: Path, folder: Path) -> None:
    """Writes a Hugging Face folder that an engine can serve: weights and configuration, and the side files of `source`,
    the model's original folder: tokenizer, chat template, generation defaults, `rlm_env.json`."""
    base = base_model(model)
    kept = base.config.dtype
    base.config.dtype = next(iter(weights.values())).dtype
    try:
        with quietly():
            base.save_pretrained(folder, state_dict=weights)
    finally:
        base.config.dtype = kept
    copy_side_files(source, folder)


def copy_side_files(source: Path, folder: Path) -> None:
    """Copies what belongs to a model beside its weights: tokenizer, template, generation config."""
    for path in sorted(source.iterdir()):
        wanted = path.is_file() and path.suffix not in _NOT_COPIED and not path.name.endswith(".index.json")
        if wanted and path.name != "config.json" and not path.name.startswith((".", "adapter_")):
            shutil.copyfile(path, folder / path.name)
