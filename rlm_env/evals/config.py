"""What an eval is: one validated object, from a TOML file, the command line, or both; on one environment or several.

Covered: the keys, reading TOML, command-line values laid over a file's, what may differ when a run is resumed.
Not covered: whether an environment or a scaffold knows the options handed to it (they say so themselves).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlm_env.evals.prices import Price, load_prices
from rlm_env.runs.config import config_differences, merge, read_config_file
from rlm_env.runs.errors import ConfigError, explain_validation, near
from rlm_env.runs.options import EngineOptions
from rlm_env.scaffolds import SCAFFOLDS
from rlm_env.scaffolds.config import RLMConfig


class SharedConfig(BaseModel):
    """What decides a run, whatever it is run on. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """The root LLM: a model folder or `tiny-rlm` (served by a vLLM of our own), or with `base_url` the name of a
    model there."""
    sub_model: str | None = None
    """The sub-LLM; the root LLM if left out."""
    scaffolds: tuple[str, ...] = ("standard", "rlm")
    n: int = Field(default=32, ge=1)
    """Number of tasks: the first `n` of the split."""
    repeats: int = Field(default=1, ge=1)
    """Rollouts of each task in each scaffold."""
    split: Literal["train", "eval"] = "eval"
    seed: int = 0
    """Seeds the environment's tasks and the bootstrap."""
    concurrency: int = Field(default=16, ge=1)
    """Most rollouts at once."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, for example `https://api.openai.com/v1`. None: a local vLLM is started."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key (never the key itself)."""
    tokens: str | None = None
    """Model folder whose tokenizer and template match a vLLM at `base_url`: turns on the token path."""
    scaffold_options: dict[str, Any] = Field(default_factory=dict)
    """Fields of `RLMConfig` for every scaffold, over the model's own profile; under a scaffold's name for that scaffold alone:
    `max_turns = 8`, `rlm.max_turns = 8`. Some scaffolds have fields of their own: `summary.final = "sub"`."""
    engine_options: EngineOptions = EngineOptions()
    """Of the local vLLM."""
    max_cost: float | None = Field(default=None, gt=0)
    """No further rollout starts once this many US dollars are spent; those in flight finish."""
    prices: dict[str, Price] | None = None
    """US dollars per million tokens by model name; in TOML also the path of a price table."""
    out: Path
    """The output folder."""

    @model_validator(mode="before")
    @classmethod
    def _price_table(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        if isinstance(values.get("prices"), str | Path):
            values["prices"] = load_prices(Path(values["prices"]))
        return values

    @field_validator("scaffolds", mode="before")
    @classmethod
    def _known_scaffolds(cls, value: Any) -> Any:
        names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        if not names:
            raise ValueError("name at least one scaffold")
        for name in names:
            if name not in SCAFFOLDS:
                raise ValueError(f"unknown scaffold '{name}'{near(str(name), SCAFFOLDS)}")
        if len(set(names)) < len(names):
            raise ValueError("a scaffold is named twice")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> SharedConfig:
        if self.max_cost is not None and self.prices is None:
            raise ValueError("max_cost needs prices (a table of US dollars per million tokens)")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {self.base_url!r}")
        if self.base_url is None and (self.api_key_env or self.tokens):
            given = "api_key_env" if self.api_key_env else "tokens"
            raise ValueError(f"{given} goes with base_url; without it a local vLLM is started")
        if self.tokens and self.api_key_env:
            raise ValueError("api_key_env does not go with tokens: the token path speaks to a vLLM that needs no key")
        if self.base_url is not None and self.engine_options != EngineOptions():
            raise ValueError("engine_options are for a local vLLM; they have no effect on the endpoint at base_url")
        for name in self.scaffold_options:
            if name in SCAFFOLDS and name not in self.scaffolds:
                raise ValueError(
                    f"scaffold_options.{name}: this scaffold is not in scaffolds ({', '.join(self.scaffolds)})"
                )
            if name not in SCAFFOLDS and name not in RLMConfig.model_fields:
                raise ValueError(
                    f"scaffold_options: unknown key '{name}'{near(name, [*RLMConfig.model_fields, *self.scaffolds])}"
                )
        return self

    def options_of(self, scaffold: str, profile: Mapping[str, Any]) -> dict[str, Any]:
        """The `RLMConfig` fields of one scaffold: the model's profile, then the shared options, then the scaffold's own."""
        shared = {key: value for key, value in self.scaffold_options.items() if key not in SCAFFOLDS}
        return merge(merge(dict(profile), shared), self.scaffold_options.get(scaffold, {}))

    def as_toml(self) -> dict[str, Any]:
        """The keys that are set, as plain values; `model_validate` reads them back."""
        return self.model_dump(mode="json", exclude_none=True)


class EvalConfig(SharedConfig):
    """A run on one environment."""

    environment: str
    """The environment's name, for example `oolong-rlm`."""
    env_options: dict[str, Any] = Field(default_factory=dict)


class EnvironmentEntry(BaseModel):
    """One environment of a matrix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The environment's name, for example `oolong-rlm`."""
    label: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    """Its row in the table and its folder; the name if left out. Tells apart two entries of one environment."""
    n: int | None = Field(default=None, ge=1)
    """Number of tasks; the matrix's `n` if left out."""
    env_options: dict[str, Any] = Field(default_factory=dict)
    scaffold_options: dict[str, Any] = Field(default_factory=dict)
    """Over the matrix's own, for this environment alone."""


class MatrixConfig(SharedConfig):
    """Runs on several environments with the same model, scaffolds and budgets, behind the same engines.

    Each is an ordinary run in a folder of its own below `out`.
    """

    environments: tuple[EnvironmentEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> MatrixConfig:
        labels = [entry.label or entry.name for entry in self.environments]
        if twice := {label for label in labels if labels.count(label) > 1}:
            raise ValueError(f"environments: '{min(twice)}' is there twice; give each its own label")
        return self

    def runs(self) -> dict[str, EvalConfig]:
        """The runs by label. Raises ConfigError where an entry's options contradict the rest."""
        shared = self.model_dump(exclude={"environments"})
        found: dict[str, EvalConfig] = {}
        for entry in self.environments:
            label = entry.label or entry.name
            own = {
                "environment": entry.name,
                "n": entry.n or self.n,
                "env_options": entry.env_options,
                "scaffold_options": merge(self.scaffold_options, entry.scaffold_options),
                "out": self.out / label,
            }
            try:
                found[label] = EvalConfig.model_validate(shared | own)
            except ValidationError as error:
                raise ConfigError(explain_validation(error, EvalConfig, f"environments: {label}")) from error
        return found


def load_config(
    path: Path | None, overrides: dict[str, Any], default_out: str | None = None
) -> EvalConfig | MatrixConfig:
    """A config from a TOML file (or none), with the command line's values laid over it: a matrix where the file
    has `environments`, else a single run.

    Where neither names an output folder it is `outputs/<environment>-<model>-<default_out>`, of a matrix with the
    file's name first; None: it must be named. Options in `env_options`, `scaffold_options` and `engine_options` are merged
    key by key; `n` holds for every environment of a matrix. Relative paths of prices are relative to the current
    directory, as on the command line. Raises ConfigError.
    """
    values = read_config_file(path) if path else {}
    kind = MatrixConfig if "environments" in values else EvalConfig
    for key, value in overrides.items():
        values[key] = merge(values.get(key), value)
    where = str(path) if path else "command line"
    if kind is MatrixConfig:
        if "env_options" in overrides:
            raise ConfigError(f"--env-option does not go with {where}: its environments differ in their options")
        if "n" in overrides and isinstance(entries := values["environments"], list):
            values["environments"] = [e | {"n": overrides["n"]} if isinstance(e, dict) else e for e in entries]
    if "out" not in values:
        if default_out is None:
            raise ConfigError("--resume needs the run's folder: give --out FOLDER, or FOLDER/config.toml as the config")
        model = Path(str(values.get("model", ""))).name
        what = path.stem if path and kind is MatrixConfig else values.get("environment")
        values["out"] = f"outputs/{what}-{model}-{default_out}"
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, kind, where)) from error


RESUMABLE = frozenset({"n", "repeats", "scaffolds", "concurrency", "max_cost", "prices", "out"})
"""Keys that a resumed run may change. Tasks, repeats and scaffolds may only be added to."""


def check_resume(recorded: dict[str, Any], config: EvalConfig, where: Path) -> None:
    """Refuses to add to a run that was made with another config. Raises ConfigError that names the difference."""
    old, new = dict(recorded), config.as_toml()
    differences = config_differences(old, new, RESUMABLE)
    for key in ("n", "repeats"):
        if new[key] < old.get(key, 0):
            differences.append(f"{key} was {old[key]}, is now {new[key]} (it may only grow)")
    if missing := set(old.get("scaffolds", ())) - set(new["scaffolds"]):
        differences.append(f"scaffolds was {old['scaffolds']}, now without {', '.join(sorted(missing))}")
    if differences:
        raise ConfigError(
            f"{where} was made with another config:\n  "
            + "\n  ".join(differences)
            + f"\nRepeat it as it was with `rlm-env eval {where}/config.toml --resume`, or choose another --out."
        )
