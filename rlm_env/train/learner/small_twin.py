"""A small model of the architecture of a large one, with random values, made from the configuration alone.

Whether samples can share packs, and whether a model can be trained at all, depends on its code and its settings, not on
its sizes and weights: what `packing_check.py` finds in the twin it would find in the model. Not covered: what only
rounding shows, and architectures whose sizes cannot be scaled down together.
"""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from rlm_env.train.learner.config import ModelConfig
from rlm_env.train.learner.model import model_without_values, prepare
from rlm_env.train.learner.packing_check import TOLERANCES, choose_packing, kinds_until
from rlm_env.train.learner.quietly import quietly

FACTORS = (32, 16, 8, 4, 2, 1)
"""By which widths are divided; the first one with which the model still works by itself is taken."""
MOST = 50_000_000
"""Parameters of a twin."""
NARROWEST = 32
"""The least width that it may have; with less, little is left of some layers."""
VOCAB = 256
"""Tokens of its vocabulary."""
LOGITS = 8.0
"""About how large its logits are: as those of trained models, so that a cap on them shows."""
WIDTH = re.compile(
    r"(?:.*_)?(?:hidden_size|intermediate_size|ffn_hidden_size|head_dim|head_size|d_head|d_model|d_kv|d_ff|d_inner|dff|"
    r"n_embd|n_inner|ffn_dim|embed_dim|embedding_size|proj_dim|lora_rank|lru_width|d_ssm|rotary_dim|kv_channels)"
    r"(?:_mlp|_per_layer_input)?"
)
"""Names of settings that are widths of layers."""
ON_CPU = {"auto", "eager", "sdpa"}
"""Attention that runs on a CPU."""


def planned_packing(model_config: Any, config: ModelConfig, device_type: str) -> tuple[bool, bool] | None:
    """`choose_packing` for a model of this (Hugging Face) configuration, none of whose weights are needed; None where
    that cannot be told before they are loaded. Raises PackingError and ModelError as loading the model would."""
    twin = small_twin(model_config, config)
    if twin is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that samples are trained one by one is in the answer
        return choose_packing(twin, config, device_type, TOLERANCES[torch.float32])


def small_twin(model_config: Any, config: ModelConfig) -> nn.Module | None:
    """The twin, on the CPU in float32, without an adapter; None where none can be made that works by itself."""
    if config.attention not in ON_CPU:
        return None
    config = config.model_copy(update={"dtype": "float32", "lora": None, "gradient_checkpointing": False})
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(0)
        for factor in FACTORS:
            if factor > 1 and getattr(model_config.get_text_config(), "hidden_size", NARROWEST) < NARROWEST * factor:
                continue
            try:
                twin = _made(_scaled(model_config, factor), config)
                if twin is None or _works(twin):
                    return None if twin is None else prepare(twin, config, 0)
            except Exception:  # transformers' code has no one error for sizes that do not go together
                continue
    return None


def _scaled(model_config: Any, factor: int) -> Any:
    """The configuration with all widths divided by `factor`, rounded down, and a small vocabulary."""
    found = copy.deepcopy(model_config)
    text = found.get_text_config()
    for part in {id(part): part for part in (found, text)}.values():
        for name, value in part.to_dict().items():
            if isinstance(value, bool) or not isinstance(value, int):
                continue
            if name.endswith("_token_id") or "vocab_size" in name:
                setattr(part, name, min(value, 0 if name.endswith("_id") else VOCAB))
            elif WIDTH.fullmatch(name):
                setattr(part, name, max(1, value // factor))
    sections = (getattr(text, "rope_parameters", None) or {}).get("mrope_section")
    if sections:
        text.rope_parameters["mrope_section"] = [size // factor for size in sections]
    return found


def _made(model_config: Any, config: ModelConfig) -> nn.Module | None:
    """A model of the fewest layers among which every kind occurs; None where it has too many parameters."""
    with init_empty_weights(include_buffers=False):
        model = model_without_values(model_config, config)
    model.tie_weights()
    base: Any = model.requires_grad_(False)
    text = base.config.get_text_config()
    for layers in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        if len(layers) == text.num_hidden_layers:  # `layers`, `h`, `blocks`
            del layers[kinds_until(layers, text) :]
    parts = ([model], [base.get_decoder(), base.get_output_embeddings()])  # without what reads images
    part = next((part for part in parts if sum(p.numel() for one in part for p in one.parameters()) <= MOST), None)
    if part is None:
        return None
    used = {id(module) for one in part for module in one.modules()}
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(module) not in used:
                module._parameters[name] = nn.Parameter(torch.empty(0), requires_grad=False)
            elif parameter is not None:
                module._parameters[name] = made.setdefault(id(parameter), _random(parameter))
    head = base.get_output_embeddings().weight
    head.data *= LOGITS
    return model


def _random(parameter: nn.Parameter) -> nn.Parameter:
    """Values of such a size that neither activations nor gradients vanish."""
    values = torch.randn(parameter.shape)
    return nn.Parameter(1 + values / 10 if values.ndim < 2 else values / values.shape[-1] ** 0.5)


@torch.no_grad()
def _works(twin: nn.Module) -> bool:
    """Whether its own forward, through transformers' own attention, gives numbers."""
    base: Any = twin
    asked = base.config._attn_implementation
    base.config._attn_implementation = "eager"
    ids = torch.arange(1, 9)[None]
    found = base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    base.config._attn_implementation = asked
    return bool(found.isfinite().all())
