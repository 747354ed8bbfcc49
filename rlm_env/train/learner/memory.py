"""An estimate of the memory that training needs, made before anything is loaded, and the refusal of what does not fit.

The sizes of weights, masters, gradients and moments are exact, that of activations is rough. Fragmentation and the
memory that libraries take for themselves are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlm_env.train.learner import distributed
from rlm_env.train.learner.adapter import adapter_targets
from rlm_env.train.learner.config import LoraConfig, ModelConfig, ModelError
from rlm_env.train.learner.forward import UNSUPPORTED, decoder_layers, text_settings, unsupported
from rlm_env.train.learner.logprobs import chunk_elements
from rlm_env.train.learner.model import compute_dtype, read_model_config
from rlm_env.train.learner.packing_check import shallow_copy
from rlm_env.train.learner.tree_packing import KEYS, may_be_trees

GIB = 2**30
_SLACK = 1.2
"""Factor on the activations for tensors that are not counted. With it the total was within 10 % of the measured peak of
a Qwen3 of 36M parameters on a CPU: plain, with gradient checkpointing, and with an adapter."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process by use."""

    weights: int
    """In the type of the forward, plus float32 masters if that is a narrower one."""
    gradients: int
    """Float32 sums of the trained parameters."""
    moments: int
    """AdamW's two, float32."""
    activations: int
    """Activations of one pack, and the logits of one chunk of tokens."""
    reference: int
    """A frozen copy of the initial weights, for the KL term; 0 without it, and under an adapter."""
    loading: int
    """Host memory while loading, not part of `total`. One process reads all of the model before it is moved to its
    device. Of several, the first reads a few layers, to check packing."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.reference

    def __str__(self) -> str:
        parts = ("weights", "gradients", "moments", "activations", *(["reference"] if self.reference else []))
        return ", ".join(f"{part} {getattr(self, part) / GIB:.2f}" for part in parts)


def require_memory(folder: Path, config: ModelConfig, device: torch.device, *, reference: bool = False) -> Memory:
    """The memory that training the model in `folder` needs. `reference`: with a KL term. Raises ModelError, with the
    numbers and remedies, if the device or the host has less."""
    need = training_memory(read_model_config(folder), config, distributed.world_size(), reference=reference)
    problem = memory_problem(need, folder, config, device, distributed.local_world_size())
    if problem is not None:
        raise ModelError(problem)
    return need


def memory_problem(need: Memory, folder: Path, config: ModelConfig, device: torch.device, sharers: int) -> str | None:
    """Why device or host have too little, with the remedies; None where they have enough. `sharers`: processes on this
    machine, each of which needs that much."""
    available = free_memory(device, sharers)
    if need.total > available:
        return (
            f"training {folder} needs about {need.total / GIB:.2f} GiB on {device} ({need}), and "
            f"{available / GIB:.2f} GiB are free; {_remedies(config)}"
        )
    available = available_memory(torch.device("cpu"))
    if need.loading > available:
        return (
            f"loading {folder} takes {need.loading / GIB:.2f} GiB of this machine's memory, and {available / GIB:.2f} "
            "GiB are free; use a machine with more memory"
        )
    return None


def free_memory(device: torch.device, sharers: int) -> int:
    """Free bytes of the device for each of so many processes of this machine, which have a card each."""
    return available_memory(device) // (1 if device.type == "cuda" else sharers)


def training_memory(model_config: Any, config: ModelConfig, processes: int = 1, *, reference: bool = False) -> Memory:
    """An estimate for a model of this (Hugging Face) configuration. `reference`: with a KL term to the initial
    weights. Allocates nothing. Raises ModelError where it is no decoder of a kind that can be trained."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(model_config)
        return memory_of(model, config, processes, reference=reference)
    except ModelError:
        raise
    except (ValueError, ImportError, *UNSUPPORTED) as error:
        raise ModelError(unsupported(model_config.model_type, "estimating its memory", error)) from error


def memory_of(model: Any, config: ModelConfig, processes: int = 1, *, reference: bool = False) -> Memory:
    """`training_memory` of a model that is there already, on the meta device for example."""
    total = sum(parameter.numel() for parameter in model.parameters())
    width = compute_dtype(config).itemsize
    trained = _adapter_size(model, config.lora) if config.lora else total
    frozen = total if config.lora else 0
    masters = 4 * trained
    gathered = 0
    if processes == 1:
        copies = width * trained if width < 4 else 0
    else:  # gathered: parameters outside of layers during the whole pass, and two layers at a time
        layers = decoder_layers(model)
        layer = sum(parameter.numel() for parameter in layers[0].parameters())
        copies = gathered = width * (total - layer * (len(layers) - 2))
    return Memory(
        weights=(masters + frozen * width) // processes + copies,
        gradients=4 * trained // processes,
        moments=8 * trained // processes,
        activations=_activations(text_settings(model.config), config, width),
        reference=width * total // processes + gathered if reference and not config.lora else 0,
        loading=masters + frozen * width if processes == 1 else _loaded_by_the_first(model, config),
    )


def _loaded_by_the_first(model: Any, config: ModelConfig) -> int:
    width = compute_dtype(config).itemsize if config.lora else 4
    return width * sum(parameter.numel() for parameter in shallow_copy(model).parameters())


def available_memory(device: torch.device) -> int:
    """Free bytes of the device. On a CPU, the smaller of the kernel's available memory and the control group's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return available
    return available if limit == "max" else min(available, int(limit) - int(used))


def _activations(text: Any, config: ModelConfig, width: int) -> int:
    """Bytes of the tensors kept for the backward of one pack, and of the largest temporary ones.

    Per layer and token: inputs, float32 copies and outputs of two norms; queries, keys and values before and after
    their norms and rotation, keys and values repeated for their heads, the output of attention; the gated MLP's four
    tensors; with an adapter, a second output of each linear layer. With gradient checkpointing a layer keeps only its
    input, and one layer at a time is recomputed.
    """
    heads = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    key_heads = getattr(text, "num_key_value_heads", None) or heads
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    hidden, tokens = text.hidden_size, config.pack_tokens
    elements = 6 * hidden + head_width * (7 * heads + 3 * key_heads) + 4 * inner
    if may_be_trees(config, _device_type(config)):  # keys and values of whole paths, repeated for their heads
        elements += 2 * KEYS * head_width * heads
    if config.lora:
        elements += 2 * hidden + head_width * (heads + 2 * key_heads) + 2 * inner
    layer = tokens * (width * elements + 8 * hidden)
    mask = tokens * tokens if config.attention == "sdpa" else 0  # attention by sample makes none
    if config.attention == "eager":
        layer += 4 * heads * tokens * tokens
    if config.gradient_checkpointing:
        kept = text.num_hidden_layers * tokens * hidden * width + layer
    else:
        kept = text.num_hidden_layers * layer
    logits = 3 * 4 * min(chunk_elements(_device_type(config)), tokens * text.vocab_size)
    head = 0 if config.lora else 4 * text.vocab_size * hidden
    return int(_SLACK * (kept + mask + logits + head))


def _device_type(config: ModelConfig) -> str:
    """As `pick_device`, but for a machine that has no such device too: an estimate can be for another one."""
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device


def _adapter_size(model: Any, lora: LoraConfig) -> int:
    """Number of parameters of the adapter."""
    targets = adapter_targets(model, lora)
    found = 0
    for name in targets.modules:
        layer = model.get_submodule(name)
        found += lora.rank * (layer.in_features + layer.out_features)
    for name in targets.parameters:
        experts, rows, columns = model.get_parameter(name).shape
        found += experts * lora.rank * (rows + columns)
    return found


def _remedies(config: ModelConfig) -> str:
    """What could make the training fit, in words."""
    found = [] if config.gradient_checkpointing else ["trainer.gradient_checkpointing = true"]
    if config.lora is None:
        found.append("an adapter (trainer.lora)")
    if config.dtype == "float32":
        found.append('trainer.dtype = "bfloat16"')
    return ", ".join(["try a smaller trainer.pack_tokens", *found, "a smaller model"]) + ", or more GPUs (torchrun)"
