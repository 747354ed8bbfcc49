"""Canary weights: a copy of a model or adapter with other values, to see whether an engine takes what it is given.

An engine whose answers do not change when it is given them ignores updates.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_canary_weights(source: Path, folder: Path) -> None:
    """Copies `source`, a folder with safetensors, and shifts the rows of every tensor of its first weight file by one.

    Other files are hard links, where the file system has them. Raises ValueError where there are no weights.
    """
    weights = sorted(source.glob("*.safetensors"))
    if not weights:
        raise ValueError(f"no weights (*.safetensors) in {source}")
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file != weights[0] and file.is_file():
            link_or_copy(file, folder / file.name)
    with safe_open(weights[0], "pt") as reader:
        tensors = {name: shifted(reader.get_tensor(name)) for name in reader.keys()}  # noqa: SIM118
        save_file(tensors, folder / weights[0].name, reader.metadata())


def shifted(tensor: Tensor) -> Tensor:
    """Other values of about the same size. A tensor of zeros, like half of a new adapter, gets a constant."""
    if not tensor.is_floating_point() or not tensor.ndim:
        return tensor
    return tensor.roll(1, 0) if tensor.any() else tensor + 0.1


def link_or_copy(source: os.PathLike[str] | str, target: os.PathLike[str] | str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
