"""Finds the model that a user names: a folder that a local vLLM serves, or a name at an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from rlm_env.llm.vllm.model_folder import ModelNotFound, find_model
from rlm_env.runs.engine_table import EngineEntry, Role
from rlm_env.runs.errors import ConfigError
from rlm_env.spelling import near_matches


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model that was found. Exactly one of `folder` and `base_url` is set."""

    name: str
    folder: Path | None = None
    base_url: str | None = None
    tokens: Path | None = None
    """Of a model at an endpoint: the folder with its tokenizer, where one was named."""

    @property
    def profile_folder(self) -> Path | None:
        """The folder whose `rlm_env.json` has defaults that suit the model, where there is a folder."""
        return self.folder or self.tokens


def resolve_engines(engines: Mapping[Role, EngineEntry]) -> dict[Role, ModelRef]:
    """The model of each role; equal engines give the same one. Raises ConfigError."""
    found = {entry: _resolve(entry) for entry in dict.fromkeys(engines.values())}
    return {role: found[entry] for role, entry in engines.items()}


def _resolve(entry: EngineEntry) -> ModelRef:
    ref = resolve_model(entry.model, entry.base_url)
    if entry.tokens is None:
        return ref
    try:
        return replace(ref, tokens=model_folder(entry.tokens))
    except ConfigError as error:
        raise ConfigError(f"tokens: {error}") from error


def resolve_model(spec: str, base_url: str | None = None) -> ModelRef:
    """`spec` at `base_url`; without one, a packaged model, a model folder or a model in the Hugging Face cache.

    Raises ConfigError, with the remedy, if there is no such model.
    """
    return ModelRef(spec, base_url=base_url) if base_url else ModelRef(*_find(spec))


def model_folder(spec: str) -> Path:
    """The folder of a local model, found as `resolve_model` finds it. Raises ConfigError."""
    return _find(spec)[1]


def _find(spec: str) -> tuple[str, Path]:
    """Name and folder of a local model."""
    packaged = packaged_models()
    if spec in packaged:
        return spec, packaged[spec]
    try:
        found = find_model(spec)
    except ModelNotFound as error:
        hint = near_matches(spec, packaged, listing=False)
        raise ConfigError(
            f"{error}{hint}\nModels shipped with rlm-env: {', '.join(packaged) or 'none'}. "
            "A model behind an API needs --base-url URL."
        ) from error
    return found.name, found.path


def packaged_models() -> dict[str, Path]:
    """The models that are shipped with rlm-env, by name."""
    root = Path(str(files("rlm_env"))) / "models"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def resolve_folder(spec: str) -> Path:
    """The folder of a model on this machine, found like in `resolve_model`. Raises ConfigError if there is none."""
    folder = resolve_model(spec).folder
    if folder is None:
        raise ConfigError(f"{spec} is not a model on this machine")
    return folder
