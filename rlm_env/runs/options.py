"""The tables that eval and train configs have in common: `[[environments]]`, `[options]`, `[rollout]`, `[engine]`.

The same keys are written in TOML files and with `--set table.key=value`. Not covered: reading files and `--set`
(`config.py`), keys of one command alone (`rlm_env/evals/config.py`, `rlm_env/train/rl/config.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator

from rlm_env.contexts import CONTEXTS
from rlm_env.runs.config import merge
from rlm_env.runs.config_table import Table
from rlm_env.runs.errors import ConfigError, validation_problems
from rlm_env.runs.folder import CONFIG, RESULTS, ROLLOUTS, SUMMARY
from rlm_env.scaffolds import SCAFFOLDS, config_type
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.spelling import near_matches

MODEL_FOLDER = "@model"
"""An option of an environment with this value gets the folder of the run's model, so that it can count tokens."""
UNNAMED = "vllm"
"""The name of an engine that has neither a name nor a model."""


class EngineOptions(Table):
    """`[engine]`: how a local vLLM is started; see `rlm_env.llm.VLLMServer`."""

    port: int = Field(default=0, ge=0, le=65535)
    """0: any free one."""
    max_model_len: int | None = Field(default=None, ge=1)
    """The context window in tokens; None: the model's own."""
    dtype: Literal["auto", "bfloat16", "float16", "float32", "half", "float"] = "auto"
    """As vLLM names it; `auto`: the model's own."""
    eager: bool | None = None
    """Run without CUDA graphs; None: as the server decides for the device."""
    devices: tuple[int | str, ...] | None = Field(default=None, min_length=1)
    """The GPUs that it sees, numbers or ids as in `CUDA_VISIBLE_DEVICES`; None: those that the run sees."""
    extra_args: tuple[str, ...] = ()
    """Further arguments of the vLLM server, for example `["--tensor-parallel-size", "2"]`."""
    startup_timeout: float = Field(default=900.0, gt=0)
    """Seconds."""


def check_rollout_table(table: dict[str, Any]) -> dict[str, Any]:
    """A table of `RLMConfig` fields, as it was given. Raises ValueError that names each mistake, with near matches."""
    _check_fields(table, RLMConfig)
    return table


def check_scaffold_table(table: dict[str, Any]) -> dict[str, Any]:
    """Like `check_rollout_table`; the table may also hold a table per scaffold, for example `rlm.max_turns`."""
    shared = {key: value for key, value in table.items() if key not in SCAFFOLDS}
    _check_fields(shared, RLMConfig, known=SCAFFOLDS)
    for name in table.keys() & SCAFFOLDS.keys():
        _check_fields(table[name], config_type(name), f"{name}.")
    return table


RolloutTable = Annotated[dict[str, Any], AfterValidator(check_rollout_table)]
"""`[rollout]`: fields of `RLMConfig`, over those of the model's own profile."""
ScaffoldRolloutTable = Annotated[dict[str, Any], AfterValidator(check_scaffold_table)]
"""`[rollout]` where several scaffolds run: also `[rollout.SCAFFOLD]`, for one of them alone."""


OF_METRICS = frozenset({"mean"})
"""Names that stand where labels do: `reward/mean`, `turns/mean` beside `reward/<label>`, `turns/<label>`."""
OF_FILES = frozenset({CONFIG, CONTEXTS, RESULTS, ROLLOUTS, SUMMARY})
"""Names in the folder of several runs, where each label is that of a folder."""


class EnvironmentEntry(Table):
    """One of `[[environments]]`."""

    name: str
    """The environment's name, for example `oolong-rlm`."""
    label: str = Field(default_factory=lambda known: known.get("name", ""), pattern=r"^[\w.-]+$", validate_default=True)
    """Its name in records and tables, which tells apart two entries of one environment. Default: `name`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the environment, over the config's `[options]`. `"@model"` stands for the model's folder."""
    rollout: RolloutTable = Field(default_factory=dict)
    """For this environment alone, over the config's `[rollout]`."""

    @field_validator("label")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value in OF_METRICS:
            raise ValueError(f"{value!r} is the name of a metric, reward/{value}: give the environment another label")
        if value in OF_FILES or value.startswith("."):
            raise ValueError(f"{value!r} is a name that a run's folder uses: give the environment another label")
        return value


def check_labels(entries: Iterable[EnvironmentEntry]) -> None:
    """Raises ValueError if two entries have the same label."""
    labels = [entry.label for entry in entries]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise ValueError(f"environments: '{min(twice)}' is there twice; give each its own label")


PER_ENVIRONMENT = ("n", "options", "rollout")
"""Keys of a config that an entry of `[[environments]]` can set for itself."""


def apply_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config file with those of the command line over them, tables key by key.

    A value of the command line holds for every environment, even if an entry of the file sets that key for itself.
    Of `[[engines]]` it changes the entry that it names: `engines.NAME.key=value`. Raises ConfigError if there is none.
    """
    overrides = dict(overrides)
    engines = overrides.pop("engines", None)
    merged = merge(dict(values), overrides)
    if isinstance(engines, dict):
        merged["engines"] = _apply_to_engines(merged.get("engines", []), engines)
    elif engines is not None:
        merged["engines"] = engines
    entries = merged.get("environments")
    if isinstance(entries, list):
        merged["environments"] = [_apply_to_entry(entry, overrides) for entry in entries]
    return merged


def environment_options(options: Mapping[str, Any], model_folder: Path | str | None) -> dict[str, Any]:
    """Options for an environment, the model's folder in place of `"@model"`. Raises ConfigError without a folder, and
    for a seed among them."""
    if "seed" in options:
        raise ConfigError("options.seed: the seed is the run's, a key beside the options: --seed N, or seed = N")
    if model_folder is None and MODEL_FOLDER in options.values():
        raise ConfigError("an option of the environment is @model, but the model is no folder here; give a path")
    return {key: str(model_folder) if value == MODEL_FOLDER else value for key, value in options.items()}


def _apply_to_engines(entries: Any, changes: Mapping[str, Any]) -> list[Any]:
    """Entries of `[[engines]]` with the changes to them, by name."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return entries  # refused by validation
    names = [str(entry.get("name") or entry.get("model") or UNNAMED) for entry in entries]
    changed = [dict(entry) for entry in entries]
    for name, change in changes.items():
        if name not in names:
            raise ConfigError(f"engines.{name}: there is no engine of this name{near_matches(name, names)}")
        if names.count(name) > 1:
            raise ConfigError(f"engines: '{name}' is there twice; give each its own name")
        changed[names.index(name)] = merge(changed[names.index(name)], change)
    return changed


def _apply_to_entry(entry: Any, overrides: Mapping[str, Any]) -> Any:
    """An entry of `[[environments]]` with the command line's values over it."""
    if not isinstance(entry, dict):
        return entry  # refused by validation
    return {
        key: merge(value, overrides[key]) if key in PER_ENVIRONMENT and key in overrides else value
        for key, value in entry.items()
    }


def _check_fields(table: Any, model: type[BaseModel], prefix: str = "", known: Iterable[str] = ()) -> None:
    """Raises ValueError for unknown keys, with near matches, and for values that are not allowed."""
    if not isinstance(table, dict):
        raise ValueError(f"{prefix.rstrip('.')} must be a table, got {table!r}")
    for key in table:
        if key not in model.model_fields:
            raise ValueError(f"unknown key '{prefix}{key}'{near_matches(key, [*model.model_fields, *known])}")
    try:
        model.model_validate(table)
    except ValidationError as error:
        raise ValueError("; ".join(prefix + problem for problem in validation_problems(error, model))) from error
