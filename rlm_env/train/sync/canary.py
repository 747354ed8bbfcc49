"""Other weights in the same shape, to see whether an engine takes what it is given.

Covered: a folder with safetensors, of a whole model or of a peft adapter. Not covered: weights that make any sense.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_canary(source: Path, folder: Path) -> None:
    """A copy of `source` with the samples of all tensors of its first weight file moved on by one. Its other files are
    the same ones under a second name (hard links), where the file system can do that."""
    weights = sorted(source.glob("*.safetensors"))
    if not weights:
        raise ValueError(f"no weights (*.safetensors) in {source}")
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file != weights[0] and file.is_file():
            _link(file, folder / file.name)
    with safe_open(weights[0], "pt") as reader:
        tensors = {name: _other(reader.get_tensor(name)) for name in reader.keys()}  # noqa: SIM118
        save_file(tensors, folder / weights[0].name, reader.metadata())


def _other(tensor: Tensor) -> Tensor:
    """Of about the same size; what is 0 all over, like half of a new adapter, is not any more."""
    if not tensor.is_floating_point() or not tensor.ndim:
        return tensor
    return tensor.roll(1, 0) if tensor.any() else tensor + 0.1


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
