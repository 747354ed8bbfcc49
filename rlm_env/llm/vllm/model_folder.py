"""Finds a model on disk and checks that it can be served. Reads no weights, needs no torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_env.llm.base import LLMError

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")


class ModelNotFound(LLMError):
    """A path or name that is not a complete model. The message says what is missing and what is expected."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checked model folder."""

    path: Path
    name: str
    """The Hub id, or the folder's own name."""
    config: dict[str, Any]
    weight_bytes: int

    @property
    def dtype(self) -> str | None:
        """Type of the weights as the config has it ("float32", "bfloat16"), None if it does not say."""
        return self.config.get("dtype") or self.config.get("torch_dtype")

    @property
    def context_window(self) -> int | None:
        """The config's `max_position_embeddings`, in tokens."""
        return self._text.get("max_position_embeddings")

    @property
    def vocabulary(self) -> int | None:
        """The config's `vocab_size`: token ids are below it."""
        return self._text.get("vocab_size")

    @property
    def _text(self) -> dict[str, Any]:
        """What the config says of a language model."""
        return self.config.get("text_config") or self.config


def find_model(model: str | os.PathLike[str]) -> ModelFolder:
    """The model at a path, or of a Hub id in the local cache. Downloads nothing. Raises ModelNotFound."""
    given = os.fspath(model)
    path = Path(given).expanduser()
    name = path.name or path.resolve().name
    if not path.exists():
        cached = _cached_snapshot(given)
        if cached is None:
            raise ModelNotFound(
                f"model {given!r} not found: expected a folder with config.json, *.safetensors and a tokenizer, "
                f"or a Hub id that was downloaded before (hf download {given})"
            )
        path, name = cached, given
    if not path.is_dir():
        raise ModelNotFound(f"model {given!r} is a file: give the folder that holds config.json and the weights")
    missing = [
        what
        for what, patterns in (
            ("config.json", ("config.json",)),
            ("weights (*.safetensors)", WEIGHTS),
            ("a tokenizer (tokenizer.json)", TOKENIZERS),
        )
        if not any(next(path.glob(pattern), None) for pattern in patterns)
    ]
    if missing:
        raise ModelNotFound(f"{given!r} is not a model folder: it has no {', no '.join(missing)}")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFound(f"{given!r} is not a model folder: its config.json is not JSON ({error})") from None
    sizes = (file.stat().st_size for pattern in WEIGHTS for file in path.glob(pattern))
    return ModelFolder(path=path.resolve(), name=name, config=config, weight_bytes=sum(sizes))


def _cached_snapshot(name: str) -> Path | None:
    """The folder of a Hub id in the local cache, if it is complete there."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception:  # absent, incomplete or a bad id: not in the cache in any case
        return None
