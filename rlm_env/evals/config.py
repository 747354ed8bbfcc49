"""What an eval is: one validated object, from a TOML file, the command line, or both; on one environment or several.

Covered: the keys, reading TOML, command-line values laid over a file's, what may differ when a run is resumed.
Not covered: whether an environment or an arm knows the options handed to it (they say so themselves).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlm_env.arms import ARMS
from rlm_env.env import RLMConfig
from rlm_env.evals.errors import ConfigError, explain, near
from rlm_env.evals.prices import Price, load_prices

RECORD = "record"
"""The table of an output folder's config.toml that says what was found out, not what was asked for."""


class EngineOptions(BaseModel):
    """How a vLLM of our own is started; see `rlm_env.llm.VLLMServer`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: int = Field(0, ge=0, le=65535)
    """0: a free one."""
    max_model_len: int | None = Field(None, ge=1)
    """The window in tokens; the model's own if left out."""
    dtype: str = "auto"
    eager: bool | None = None
    extra_args: tuple[str, ...] = ()
    """Further arguments of the vLLM server, for example `["--tensor-parallel-size", "2"]`."""
    startup_timeout: float = Field(900.0, gt=0)


class SharedConfig(BaseModel):
    """What decides a run, whatever it is run on. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """The root LLM: a model folder or `tiny-rlm` (served by a vLLM of our own), or with `base_url` the name of a
    model there."""
    sub_model: str | None = None
    """The sub-LLM; the root LLM if left out."""
    arms: tuple[str, ...] = ("standard", "rlm")
    n: int = Field(32, ge=1)
    """Number of tasks: the first `n` of the split."""
    repeats: int = Field(1, ge=1)
    """Rollouts of each task in each arm."""
    split: Literal["train", "eval"] = "eval"
    seed: int = 0
    """Seeds the environment's tasks and the bootstrap."""
    concurrency: int = Field(16, ge=1)
    """Most rollouts at once."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, for example `https://api.openai.com/v1`. None: a local vLLM is started."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key (never the key itself)."""
    tokens: str | None = None
    """Model folder whose tokenizer and template match a vLLM at `base_url`: turns on the token path."""
    arm_options: dict[str, Any] = Field(default_factory=dict)
    """Fields of `RLMConfig` for every arm, over the model's own profile; under an arm's name for that arm alone:
    `max_turns = 8`, `rlm.max_turns = 8`. Some arms have fields of their own: `summary.final = "sub"`."""
    engine_options: EngineOptions = EngineOptions()
    """Of the local vLLM."""
    max_cost: float | None = Field(None, gt=0)
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

    @field_validator("arms", mode="before")
    @classmethod
    def _known_arms(cls, value: Any) -> Any:
        names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        if not names:
            raise ValueError("name at least one arm")
        for name in names:
            if name not in ARMS:
                raise ValueError(f"unknown arm '{name}'{near(str(name), ARMS)}")
        if len(set(names)) < len(names):
            raise ValueError("an arm is named twice")
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
        for name in self.arm_options:
            if name in ARMS and name not in self.arms:
                raise ValueError(f"arm_options.{name}: this arm is not in arms ({', '.join(self.arms)})")
            if name not in ARMS and name not in RLMConfig.model_fields:
                raise ValueError(
                    f"arm_options: unknown key '{name}'{near(name, [*RLMConfig.model_fields, *self.arms])}"
                )
        return self

    def options_of(self, arm: str, profile: Mapping[str, Any]) -> dict[str, Any]:
        """The `RLMConfig` fields of one arm: the model's profile, then the shared options, then the arm's own."""
        shared = {key: value for key, value in self.arm_options.items() if key not in ARMS}
        return merge(merge(dict(profile), shared), self.arm_options.get(arm, {}))

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
    label: str | None = Field(None, pattern=r"^[\w.-]+$")
    """Its row in the table and its folder; the name if left out. Tells apart two entries of one environment."""
    n: int | None = Field(None, ge=1)
    """Number of tasks; the matrix's `n` if left out."""
    env_options: dict[str, Any] = Field(default_factory=dict)
    arm_options: dict[str, Any] = Field(default_factory=dict)
    """Over the matrix's own, for this environment alone."""


class MatrixConfig(SharedConfig):
    """Runs on several environments with the same model, arms and budgets, behind the same engines.

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
                "arm_options": merge(self.arm_options, entry.arm_options),
                "out": self.out / label,
            }
            try:
                found[label] = EvalConfig.model_validate(shared | own)
            except ValidationError as error:
                raise ConfigError(explain(error, EvalConfig, f"environments: {label}")) from error
        return found


def load_config(
    path: Path | None, overrides: dict[str, Any], default_out: str | None = None
) -> EvalConfig | MatrixConfig:
    """A config from a TOML file (or none), with the command line's values laid over it: a matrix where the file
    has `environments`, else a single run.

    Where neither names an output folder it is `outputs/<environment>-<model>-<default_out>`, of a matrix with the
    file's name first; None: it must be named. Options in `env_options`, `arm_options` and `engine_options` are merged
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
        raise ConfigError(explain(error, kind, where)) from error


def read_config_file(path: Path) -> dict[str, Any]:
    """The values of a config file. One that a run has written, with a record, is where it is from wherever we look:
    its `out` is its folder. Raises ConfigError, with near matches where there is no such file."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        near_files = near(path.name, [p.name for p in path.parent.glob("*.toml")])
        raise ConfigError(f"no such config file: {path}{near_files}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    if values.pop(RECORD, None):
        values["out"] = str(path.parent)
    return values


def merge(old: Any, new: Any) -> Any:
    """`new` laid over `old`: dicts key by key, anything else replaces."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
    return new


def parse_option(text: str) -> dict[str, Any]:
    """`key=value` of the command line as a (nested) dict: `root.temperature=0` is {"root": {"temperature": 0}}.

    The value is read as TOML (8, 0.5, true, [1, 2], "text"); `a,b,c` is a list; anything else is text.
    Raises ConfigError.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"an option is written key=value, got '{text}'")
    parsed: Any = _value(value)
    for part in reversed(key.split(".")):
        parsed = {part.strip(): parsed}
    return parsed


def merge_options(texts: Iterable[str]) -> dict[str, Any]:
    """Several `key=value` as one dict; later ones win."""
    merged: dict[str, Any] = {}
    for text in texts:
        merged = merge(merged, parse_option(text))
    return merged


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
        if list(parsed) == ["value"]:
            return parsed["value"]
    except tomllib.TOMLDecodeError:
        pass
    return [_value(part) for part in text.split(",")] if "," in text else text


RESUMABLE = frozenset({"n", "repeats", "arms", "concurrency", "max_cost", "prices", "out"})
"""Keys that a resumed run may change. Tasks, repeats and arms may only be added to."""


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any], allowed: frozenset[str]) -> list[str]:
    """The keys in which two configs differ beyond the allowed ones, as "key was ..., is now ..."."""
    return [
        f"{key} was {old.get(key)!r}, is now {new.get(key)!r}"
        for key in sorted((old.keys() | new.keys()) - allowed)
        if old.get(key) != new.get(key)
    ]


def check_resume(recorded: dict[str, Any], config: EvalConfig, where: Path) -> None:
    """Refuses to add to a run that was made with another config. Raises ConfigError that names the difference."""
    old, new = dict(recorded), config.as_toml()
    differences = config_differences(old, new, RESUMABLE)
    for key in ("n", "repeats"):
        if new[key] < old.get(key, 0):
            differences.append(f"{key} was {old[key]}, is now {new[key]} (it may only grow)")
    if missing := set(old.get("arms", ())) - set(new["arms"]):
        differences.append(f"arms was {old['arms']}, now without {', '.join(sorted(missing))}")
    if differences:
        raise ConfigError(
            f"{where} was made with another config:\n  "
            + "\n  ".join(differences)
            + f"\nRepeat it as it was with `rlm-env eval {where}/config.toml --resume`, or choose another --out."
        )
