"""A little training run that saves after every step: what the tests of checkpoints interrupt.

As a program it is killed in the midst of a save: `python -m tests.train.saving_run MODEL FOLDER SETTINGS STEP`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from rlm_env.train.learner import learner as module
from rlm_env.train.learner.checkpoint import Checkpoints
from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.samples import Sample

STEPS = 5


def run(model: Path, folder: Path, settings: dict[str, Any], until: int = STEPS, kill_at: int | None = None) -> None:
    """Goes on from the newest checkpoint in `folder` up to step `until`; a line of losses.jsonl for each step."""
    found = module.Learner(
        model,
        ModelConfig(device="cpu", pack_tokens=20, **settings),
        OptimizerConfig(lr=3e-3, schedule="cosine", warmup_steps=2, weight_decay=0.1),
        LossConfig(),
        total_steps=STEPS,
    )
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    if path := checkpoints.latest():
        assert checkpoints.load(found, path) == {"step": found.version}
    while found.version < until:
        step = found.version
        if step + 1 == kill_at:
            _die_in_the_next_save()
        metrics = found.step(samples(step))
        line = {"step": step, **{key: metrics[key] for key in ("loss", "grad_norm", "lr", "entropy")}}
        with (folder / "losses.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        checkpoints.save(found.version, found, {"step": found.version})
    found.export(folder / "out")


def samples(step: int) -> list[Sample]:
    """Other ones at every step."""
    return [
        Sample([i, 3 * i + step, 5, 7 + i], [False, False, True, True], [0, 0, -4.0, -4.5], str(i), advantage=i - 4.5)
        for i in range(10)
    ]


def _die_in_the_next_save() -> None:
    """Among its first tensors, which are written with `torch.save`."""
    save = module.torch.save

    def dies(*arguments: Any) -> None:
        save(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    module.torch.save = dies


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), kill_at=int(sys.argv[4]))
