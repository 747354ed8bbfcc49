"""Reads the weights in a Hugging Face folder one at a time, by the names that they have in the model.

Files may cut weights otherwise than the model does: of most mixtures of experts they hold a matrix for each expert, and
the model one tensor for all experts of a layer. transformers knows which become which (its conversion mapping, from
which its own loader works); here that is done for one tensor at a time, and of stacked experts for some of them.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from rlm_env.train.learner.adapter import unwrapped_name
from rlm_env.train.learner.config import ModelError


class WeightFiles:
    """The safetensors files of a model folder, read by the names of the model's tensors."""

    def __init__(self, folder: Path, model: Any) -> None:
        """`model`: of transformers, with an adapter or without; only names and shapes of its tensors are used."""
        self._folder = folder
        self._model = model
        self._shapes = {unwrapped_name(n): t.shape for n, t in model.state_dict().items() if ".lora_" not in n}
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)
        self._converters: dict[str, WeightConverter] = {}
        """By source pattern."""
        self._sources: dict[str, dict[str | None, list[str]]] = {}
        """For each tensor of the model the names in the files that it is made of, by the pattern that they match."""
        self._find_sources()

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor of the model, or rows of it. No more is read than is needed for these rows, where whole experts are
        stacked and where the files have the tensor as it is. Raises ModelError where the files hold another shape."""
        sources = self._sources[name]
        if None in sources:
            found = self.read_as_stored(sources[None][0], rows)
        else:
            converter = copy.deepcopy(self._converters[next(pattern for pattern in sources if pattern)])
            some = rows if rows is not None and _stacks_rows(converter) else slice(None)
            for pattern, keys in sources.items():
                for key in keys[some]:
                    converter.add_tensor(name, key, str(pattern), partial(self.read_as_stored, key))  # pyright: ignore[reportArgumentType] - called, as a future would be waited for
            made = converter.convert(name, model=self._model, config=self._model.config)[name]
            found = made[0] if isinstance(made, list) else made
            if rows is not None and some == slice(None):
                found = found[rows].clone()
        length, *others = self._shapes[name] or [1]
        expected = [length if rows is None else len(range(length)[rows]), *others][: found.ndim]
        if list(found.shape) != expected:
            raise ModelError(f"{self._folder} has {name} in the shape {list(found.shape)}, the model in {expected}")
        return found

    def read_as_stored(self, key: str, rows: slice | None = None) -> Tensor:
        """A tensor by its name in the files, or rows of it; nothing else is read."""
        with safe_open(self._files[key], "pt") as file:
            return file.get_tensor(key) if rows is None else file.get_slice(key)[rows]

    def _find_sources(self) -> None:
        mapping = get_model_conversion_mapping(self._model)
        renamings = [step for step in mapping if isinstance(step, WeightRenaming)]
        converters = [step for step in mapping if isinstance(step, WeightConverter)]
        self._converters = {pattern: step for step in converters for pattern in step.source_patterns}
        found: dict[str, dict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))
        shapes: dict[str, Any] = dict(self._shapes)
        for key in sorted(self._files, key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, self._model.base_model_prefix, shapes)
            if name not in shapes and key in shapes:
                name, pattern = key, None
            for target in [name] if pattern is None else _targets(name, self._converters[pattern]):
                if target in shapes:
                    found[target][pattern].append(key)
        self._sources = {name: dict(sources) for name, sources in found.items()}


def _targets(first: str, converter: WeightConverter) -> list[str]:
    """All tensors that become of what transformers books to the first of them."""
    pattern, *others = converter.target_patterns
    return [first, *(first.replace(pattern, other, 1) for other in others)]


def _stacks_rows(converter: WeightConverter) -> bool:
    """Whether each row of the result (an expert) is made of one tensor of every source."""
    first, *others = converter.operations
    stacked = isinstance(first, MergeModulelist) and first.dim == 0
    return stacked and all(isinstance(step, Concatenate) and step.dim > 0 for step in others)
