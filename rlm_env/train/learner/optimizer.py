"""AdamW on float32 master weights, its schedule, and what happens to a gradient before it is applied.

Covered: masters and float32 gradient sums where the forward is in a narrower type, decay groups, warm-up and decay of
the learning rate, clipping by the global norm, refusal of gradients that are not finite. Not covered: sharding; the
parameters may be sharded already (`distributed.py`), and nothing here differs for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlm_env.train.learner.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Of step `step`, counted from 0. A function of the step alone, so nothing has to be kept for a resume.

    Rises linearly to `lr` over `warmup_steps`, of which the first already moves; then stays, or falls linearly or
    as half a cosine wave to `final_fraction` of it at the last step.
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
    """The float32 master of each trainable parameter, by name; the module itself goes over to `dtype`.

    With float32 masters and parameters are the same tensors. In a narrower type an update of less than about one
    part in 500 would be rounded away; a master keeps it until the sum of such updates shows.
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
    """What one optimizer step did."""

    grad_norm: float
    """Global 2-norm before clipping."""
    lr: float
    applied: bool
    """False where the norm was not finite: weights and optimizer state are as they were."""


class Optimizer:
    """AdamW over masters. Owns the optimizer's state and the gradients; invariant: between two steps no parameter
    has a gradient, and every parameter equals its master in its own type.

    `module`: what is trained. `masters`: of `split_masters`. After construction each backward adds its gradients
    to the masters', in float32, and leaves none at the parameters themselves.
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
        for master in masters.values():  # at once, so that a checkpoint has the same tensors at any step
            self.adam.state[master] = {
                "step": torch.zeros((), device=master.device if fused else "cpu"),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }

    def step(self, step: int) -> Update:
        """Clips the gradients gathered since the last call, applies them at the rate of `step`, and clears them.

        A parameter that nothing reached has a gradient of 0, so its moments decay like the others'.
        """
        lr = learning_rate(self.config, step, self.total_steps)
        masters = list(self.masters.values())
        for master in masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        norm = _whole(torch.nn.utils.get_total_norm([master.grad for master in masters]))
        applied = bool(torch.isfinite(norm))
        if applied:
            scale = (self.config.max_grad_norm or math.inf) / (norm.item() + 1e-6)
            if scale < 1:
                for master in masters:
                    master.grad.mul_(scale)
            for group in self.adam.param_groups:
                group["lr"] = lr
            self.adam.step()
            self.refresh()
        self.clear()
        return Update(norm.item(), lr, applied)

    def clear(self) -> None:
        """Forgets the gradients gathered since the last step."""
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def refresh(self) -> None:
        """Rounds the masters into the parameters."""
        for parameter, master in self._narrow:
            parameter.copy_(master)

    def state(self) -> dict[str, Tensor]:
        """Masters, moments and step counts by name: the tensors themselves, to be written or to be read into.
        After reading, `refresh`."""
        found: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            found[f"weight.{name}"] = master.detach()
            found |= {f"{key}.{name}": value for key, value in self.adam.state[master].items()}
        return found


def decayed_names(module: nn.Module) -> set[str]:
    """Parameters that weight decay applies to: matrices that are no embeddings. Norms, biases and embeddings, tied
    heads among them, are not drawn towards 0."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return {n for n, p in module.named_parameters() if p.ndim >= 2 and id(p) not in embeddings}


def _adds_to(master: nn.Parameter) -> Callable[[Tensor], None]:
    def add(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if master.grad is None:
            master.grad = gradient.to(master.dtype)
        else:
            master.grad += gradient

    return add


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
