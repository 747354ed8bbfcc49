"""The reference policy of the KL term: the initial weights, without gradient.

With an adapter it is the model under it, with the adapter off, which takes no memory. Otherwise it is a frozen copy in
the type of the forward, sharded like the policy. It is always read from the initial model's folder, so that a resumed
run compares with the same weights. The formula is in `loss.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from rlm_env.train.learner import distributed
from rlm_env.train.learner.adapter import lora_layers
from rlm_env.train.learner.config import ModelConfig
from rlm_env.train.learner.forward import base_model
from rlm_env.train.learner.loading import empty_model, fill
from rlm_env.train.learner.model import PackModel, compile_layers, compute_dtype, from_pretrained, prepare
from rlm_env.train.learner.packing import Pack


class Reference:
    """Log-probabilities under the weights that training began with.

    `policy`: the trained root module, whose base is the reference where `config.lora` is set. On several processes all
    must make one and call it together.
    """

    def __init__(self, policy: PackModel, folder: Path, config: ModelConfig, device: torch.device) -> None:
        self._adapted = list(lora_layers(policy.model).values())
        self._root = policy if self._adapted else _frozen_copy(folder, config, device)
        self._shared = self._root is policy

    @torch.no_grad()
    def logprobs(self, pack: Pack) -> Tensor:
        """[tokens], at each sample's temperature; 0 where the pack's mask is False."""
        with self._without_adapter():
            found = self._root(pack).logprobs
        if not self._shared:  # what the policy gathered is used again by its own forward
            distributed.reshard(self._root)
        return found

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        """peft's own `disable_adapter` also switches gradients off and on, which sharded parameters do not take."""
        for layer in self._adapted:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in self._adapted:
                layer._disable_adapters = False


def _frozen_copy(folder: Path, config: ModelConfig, device: torch.device) -> PackModel:
    """The model in `folder`, without gradient, in the type of the forward."""
    dtype = compute_dtype(config)
    config = config.model_copy(update={"gradient_checkpointing": False})
    if distributed.world_size() == 1:
        root = PackModel(prepare(from_pretrained(folder, config, dtype), config, 0).requires_grad_(False))
    else:
        root = PackModel(empty_model(folder, config, 0, dtype).requires_grad_(False))
        distributed.shard(root, list(base_model(root.model).get_decoder().layers), dtype, device)
        fill(root.model, folder, config, device, 0)
    root.to(device)
    if config.compile:
        compile_layers(root.model)
    return root
