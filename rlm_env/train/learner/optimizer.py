"""AdamW on float32 master weights, with its learning rate schedule, gradient clipping and decay groups.

Masters and gradient sums are float32 where the forward runs in a narrower type. Parameters may be sharded already
(`distributed.py`); the code is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlm_env.train.learner.config import OptimizerConfig
from rlm_env.train.learner.distributed import whole


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The rate of a step, counted from 0. It depends on the step alone, so a checkpoint need not hold it.

    Rises linearly to `lr` over `warmup_steps`, starting above 0; then stays, or falls linearly or as half a cosine
    wave to `final_fraction` of `lr` at the last step.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    last = max(total_steps - 1 - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / last, 1.0)
    left = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.lr * (config.final_fraction + (1 - config.final_fraction) * left)


def split_masters(module: nn.Module, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """The float32 master of each trainable parameter, by name; the module's own parameters are cast to `dtype`.

    If `dtype` is float32, masters and parameters are the same tensors. In bfloat16 an update of less than about one
    part in 500 would be rounded away; the master accumulates such updates.
    """
    masters = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.dtype == dtype:
            masters[name] = parameter
        else:
            masters[name] = nn.Parameter(parameter.data)
            parameter.data = parameter.data.to(dtype)
    return masters


@dataclass(slots=True)
class Update:
    """The outcome of one optimizer step."""

    grad_norm: float
    """Global 2-norm before clipping."""
    lr: float
    applied: bool
    """False if the norm was not finite: weights and optimizer state are then unchanged."""


class Optimizer:
    """AdamW over master weights. Owns the optimizer state and the gradients. Invariant: between two steps no parameter
    has a gradient, and every parameter equals its master, rounded to the parameter's type.

    `module`: the model; `masters`: from `split_masters(module, ...)`. After construction each backward adds its
    gradients to those of the masters, in float32, and leaves none on the parameters.
    """

    def __init__(
        self, module: nn.Module, masters: dict[str, nn.Parameter], config: OptimizerConfig, total_steps: int
    ) -> None:
        self.config = config
        self.total_steps = total_steps
        self.masters = masters
        parameters = dict(module.named_parameters())
        self._narrow = [
            (parameters[name], master) for name, master in masters.items() if parameters[name] is not master
        ]
        for parameter, master in self._narrow:
            parameter.register_post_accumulate_grad_hook(_adds_to(master))
        decayed = decayed_names(module)
        groups = [
            {"params": [m for n, m in masters.items() if n in decayed], "weight_decay": config.weight_decay},
            {"params": [m for n, m in masters.items() if n not in decayed], "weight_decay": 0.0},
        ]
        fused = all(master.device.type == "cuda" for master in masters.values())
        self.adam = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=fused or None,
        )
        for master in masters.values():  # now, not at the first step: a checkpoint of any step has the same tensors
            self.adam.state[master] = {
                "step": torch.zeros((), device=master.device if fused else "cpu"),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }

    def step(self, step: int) -> Update:
        """Clips the accumulated gradients, applies them at the learning rate of `step`, and clears them.

        A parameter that no gradient reached counts as having a gradient of 0, so its moments decay like the others'.
        """
        lr = learning_rate(self.config, step, self.total_steps)
        gradients = [_gradient(master) for master in self.masters.values()]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        applied = bool(torch.isfinite(norm))
        if applied:
            scale = (self.config.max_grad_norm or math.inf) / (norm.item() + 1e-6)
            if scale < 1:
                for gradient in gradients:
                    gradient.mul_(scale)
            for group in self.adam.param_groups:
                group["lr"] = lr
            self.adam.step()
            self.refresh()
        self.clear()
        return Update(norm.item(), lr, applied)

    def clear(self) -> None:
        """Discards the gradients accumulated since the last step."""
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the masters into the parameters, rounded to their type."""
        for parameter, master in self._narrow:
            parameter.copy_(master)

    def state(self) -> dict[str, Tensor]:
        """Masters, moments and step counts by name. These are the tensors themselves, not copies: a checkpoint is
        loaded into them, and `refresh` called afterwards."""
        found: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            found[f"weight.{name}"] = master.detach()
            found |= {f"{key}.{name}": value for key, value in self.adam.state[master].items()}
        return found


def decayed_names(module: nn.Module) -> set[str]:
    """Names of the parameters that weight decay applies to: all matrices but embeddings (and heads tied to them)."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return {n for n, p in module.named_parameters() if p.ndim >= 2 and id(p) not in embeddings}


def _adds_to(master: nn.Parameter) -> Callable[[Tensor], None]:
    """A hook that adds each gradient to the master's, in float32."""

    def add(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None  # the hook runs right after it was accumulated
        if master.grad is None:
            master.grad = gradient.to(master.dtype)
        else:
            master.grad += gradient

    return add


def _gradient(master: nn.Parameter) -> Tensor:
    """The accumulated gradient; zeros, which become the master's gradient, where nothing was accumulated."""
    if master.grad is None:
        master.grad = torch.zeros_like(master)
    return master.grad
