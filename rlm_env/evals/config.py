"""The config of an eval: one validated object, from a TOML file, the command line, or both.

The tables that train configs have too are in `rlm_env/runs/options.py`. Whether an environment knows its options is
found when it is made (`setup.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from rlm_env.runs.config import config_differences, merge, read_config_file
from rlm_env.runs.engine_table import LOCAL, EngineEntry, Role, by_role
from rlm_env.runs.errors import ConfigError, explain_validation, near_matches, validation_problems
from rlm_env.runs.options import (
    EngineOptions,
    EnvironmentEntry,
    ScaffoldRolloutTable,
    Table,
    apply_overrides,
    check_labels,
)
from rlm_env.runs.prices import Price, load_prices
from rlm_env.scaffolds import SCAFFOLDS

SHORTHAND = (
    *("model", "sub_model", "judge_model", "base_url", "sub_base_url", "judge_base_url"),
    *("api_key_env", "sub_api_key_env", "judge_api_key_env", "tokens", "engine"),
)
"""Keys that `[[engines]]` takes the place of."""
EXAMPLE = "rlm-env eval oolong-rlm --model tiny-rlm"


class EvalEnvironment(EnvironmentEntry):
    """One environment of an eval. Its label is also the name of its folder, where there are several."""

    n: int | None = Field(default=None, ge=1)
    """Number of tasks; the config's own `n` if left out."""
    rollout: ScaffoldRolloutTable = Field(default_factory=dict)
    """For this environment alone, over the config's `[rollout]`."""


class EvalConfig(Table):
    """An eval on one environment or on several. Unknown keys are errors.

    Several share the model, the scaffolds and the engines. Each is a run in its own folder below `out`.
    """

    model: str | None = None
    """The root LLM: a model folder or `tiny-rlm`, which a local vLLM serves; with `base_url`, a model's name there."""
    sub_model: str | None = None
    """The sub-LLM; None: the root LLM."""
    judge_model: str | None = None
    """The LLM that judges, for environments with an option `judge`."""
    scaffolds: tuple[str, ...] = ("standard", "rlm")
    """The others are compared with the first."""
    n: int = Field(default=32, ge=1)
    """Number of tasks of each environment: the first `n` of the split."""
    repeats: int = Field(default=1, ge=1)
    """Rollouts of each task in each scaffold."""
    split: Literal["train", "eval"] = "eval"
    seed: int = 0
    """Seeds the environments' tasks and the bootstrap."""
    concurrency: int = Field(default=16, ge=1)
    """Most rollouts at once."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, for example `https://api.openai.com/v1`. None: a local vLLM is started."""
    sub_base_url: str | None = None
    """The sub-LLM's endpoint; `local`: a local vLLM. None: where the root LLM is."""
    judge_base_url: str | None = None
    """The judge's endpoint; `local`: a local vLLM. None: where the root LLM is."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key (never the key itself)."""
    sub_api_key_env: str | None = None
    """The same for the sub-LLM. None: that of the root LLM if the endpoint is the same, else no key."""
    judge_api_key_env: str | None = None
    """The same for the judge."""
    tokens: str | None = None
    """The endpoint is a vLLM that serves this model folder: token ids are exchanged instead of text."""
    max_cost: float | None = Field(default=None, gt=0)
    """No further rollout starts once this many US dollars are spent; those in flight finish."""
    prices: dict[str, Price] | None = None
    """US dollars per million tokens by model name; in a TOML file also the path of a price table."""
    baselines: bool = True
    """Measure answers without understanding on the same tasks, when all rollouts have ended."""
    judge_baselines: bool = False
    """Ask the environment's judge about the baselines too: five questions or more per task."""
    baseline_seconds: float = Field(default=120.0, gt=0)
    """The baselines end after this time, over the tasks that they have reached by then."""
    out: Path
    """The output folder."""
    environments: tuple[EvalEnvironment, ...] = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of every environment."""
    rollout: ScaffoldRolloutTable = Field(default_factory=dict)
    """Fields of `RLMConfig` for every scaffold, over the model's own profile; under a scaffold's name for that
    scaffold alone: `max_turns = 8`, `rlm.max_turns = 6`. Some have further fields: `summary.final = "sub"`."""
    engine: EngineOptions = EngineOptions()
    engines: tuple[EngineEntry, ...] = ()
    """Instead of `model`, `base_url`, their like, and `[engine]`: every engine with its roles and settings."""

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
                raise ValueError(f"unknown scaffold '{name}'{near_matches(str(name), SCAFFOLDS)}")
        if len(set(names)) < len(names):
            raise ValueError("a scaffold is named twice")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.base_url is None and (self.api_key_env or self.tokens):
            given = "api_key_env" if self.api_key_env else "tokens"
            raise ValueError(f"{given} goes with base_url; without it a local vLLM is started")
        try:
            roles = by_role(self.engine_entries())
        except ValidationError as error:
            raise ValueError("; ".join(validation_problems(error, EngineEntry))) from error
        if self.max_cost is not None and (unpriced := self._unpriced(roles.values())):
            raise ValueError(
                f"max_cost needs prices: give --prices FILE.toml with the US dollars per million tokens, for example\n"
                f'  ["{unpriced}"]\n  prompt = 0.25\n  completion = 2.0'
            )
        if self.engine != EngineOptions() and all(entry.base_url for entry in roles.values()):
            raise ValueError("[engine] is for a local vLLM; it has no effect on the endpoint at base_url")
        check_labels(self.environments)
        for table in (self.rollout, *(entry.rollout for entry in self.environments)):
            for name in table.keys() & SCAFFOLDS.keys():
                if name not in self.scaffolds:
                    raise ValueError(f"rollout.{name}: this scaffold is not in scaffolds ({', '.join(self.scaffolds)})")
        return self

    def _unpriced(self, entries: Collection[EngineEntry]) -> str | None:
        """A model without a price; None if the money that is spent can be counted."""
        if self.prices is not None:
            return None  # a model that the table lacks is named when the table is used
        if all(entry.prices is None for entry in entries):
            return next(entry.model for entry in entries)
        return next((entry.model for entry in entries if entry.price is None), None)

    def engine_entries(self) -> tuple[EngineEntry, ...]:
        """All engines: `[[engines]]`, or those that `model` and the keys beside it describe. Raises ValueError."""
        if self.engines:
            if given := [key for key in SHORTHAND if getattr(self, key) != EvalConfig.model_fields[key].default]:
                raise ValueError(
                    f"{given[0]} does not go with [[engines]], which says it all; "
                    f"to change an entry: --set engines.{self.engines[0].name}.KEY=VALUE"
                )
            return self.engines
        if self.model is None:
            raise ValueError(f"which model? Add --model (or model = ... in a file), for example: {EXAMPLE}")
        places: dict[tuple[str, str | None, str | None], list[Role]] = {}
        for role, model, url, key in self._places():
            places.setdefault((model, url, key), []).append(role)
        names = [model for model, _, _ in places]
        return tuple(
            EngineEntry(
                name=model if names.count(model) == 1 else f"{model} ({', '.join(roles)})",
                model=model,
                roles=tuple(roles),
                base_url=url,
                key_env=key,
                tokens=self.tokens if url is not None and url == self.base_url else None,
                server=self.engine if url is None else EngineOptions(),
            )
            for (model, url, key), roles in places.items()
        )

    def _places(self) -> Iterator[tuple[Role, str, str | None, str | None]]:
        """Role, model, base URL and key variable of each engine that the keys beside `[[engines]]` describe."""
        model = self.model or ""
        yield "root", model, self.base_url, self.api_key_env
        more: tuple[tuple[Role, str | None, str | None, str | None], ...] = (
            ("sub", self.sub_model or model, self.sub_base_url, self.sub_api_key_env),
            ("judge", self.judge_model, self.judge_base_url, self.judge_api_key_env),
        )
        for role, name, url, key in more:
            if name is None:
                if url or key:
                    raise ValueError(f"{role}_base_url and {role}_api_key_env go with {role}_model")
                continue
            url = None if url == LOCAL else url or self.base_url
            if key is None and url is not None and url == self.base_url:
                key = self.api_key_env  # a key is never sent to another place than its own
            yield role, name, url, key

    def engine_of(self, role: Role) -> EngineEntry | None:
        """The engine of a role; None for a judge if there is none."""
        return by_role(self.engine_entries()).get(role)

    @property
    def root(self) -> EngineEntry:
        """The engine of the root LLM."""
        return by_role(self.engine_entries())["root"]

    @property
    def sub(self) -> EngineEntry:
        """The engine of the sub-LLM."""
        return by_role(self.engine_entries())["sub"]

    @property
    def models_title(self) -> str:
        """The models in one line."""
        return self.root.model + (f", sub-LLM {self.sub.model}" if self.sub.model != self.root.model else "")

    @property
    def is_matrix(self) -> bool:
        """True with several environments."""
        return len(self.environments) > 1

    def runs(self) -> dict[str, EvalRunConfig]:
        """The run on each environment, by label. What an entry sets for itself is in the tables of its run."""
        shared = {name: getattr(self, name) for name in EvalConfig.model_fields}
        return {
            entry.label: EvalRunConfig(
                **shared
                | {
                    "environments": (EvalEnvironment(name=entry.name, label=entry.label),),
                    "n": entry.n or self.n,
                    "options": merge(self.options, entry.options),
                    "rollout": merge(self.rollout, entry.rollout),
                    "out": self.out / entry.label if self.is_matrix else self.out,
                }
            )
            for entry in self.environments
        }

    def as_toml(self) -> dict[str, Any]:
        """The keys that are set, as plain values; `model_validate` reads them back."""
        return self.model_dump(mode="json", exclude_none=True)


class EvalRunConfig(EvalConfig):
    """A run on one environment; all options are in the shared tables. The config.toml of a run holds one."""

    environments: tuple[EvalEnvironment, ...] = Field(min_length=1, max_length=1)

    @property
    def environment(self) -> str:
        """The environment's name."""
        return self.environments[0].name

    def rollout_options(self, scaffold: str, profile: Mapping[str, Any]) -> dict[str, Any]:
        """The `RLMConfig` fields of a scaffold: the model's profile, then the shared ones, then its own."""
        shared = {key: value for key, value in self.rollout.items() if key not in SCAFFOLDS}
        return merge(merge(dict(profile), shared), self.rollout.get(scaffold, {}))


def load_eval_config(path: Path | None, overrides: dict[str, Any], default_out: str | None = None) -> EvalConfig:
    """A config from a TOML file (or none), with the command line's values over it.

    If neither names an output folder, it is `outputs/<environment>-<model>-<default_out>`, with the file's name in
    place of the environment's if there are several; with `default_out` None it must be named. Tables are merged key
    by key. Relative paths are relative to the current directory. Raises ConfigError.
    """
    values = apply_overrides(read_config_file(path) if path else {}, overrides)
    where = f"{path} with the command line" if path else "command line"
    if values.get("model") is None and not values.get("engines"):
        raise ConfigError(f"which model? Add --model, for example: {EXAMPLE}")
    if values.get("out") is not None and str(values["out"]) in ("", "."):
        raise ConfigError("--out must name a folder of its own, not the current one")
    if "out" not in values:
        if default_out is None:
            raise ConfigError("--resume needs the run's folder: give --out FOLDER, or FOLDER/config.toml as the config")
        values["out"] = f"outputs/{_run_name(path, values)}-{_model_name(values)}-{default_out}"
    try:
        return EvalConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, EvalConfig, where)) from error


def _run_name(path: Path | None, values: Mapping[str, Any]) -> str:
    """The first part of the default output folder's name."""
    match values.get("environments"):
        case [{"name": str(name)}]:
            return name
        case _:
            return path.stem if path else "eval"


def _model_name(values: Mapping[str, Any]) -> str:
    """The second part of it: the root model."""
    match values:
        case {"engines": [*entries]} if entries:
            first = next((e for e in entries if isinstance(e, dict) and "root" in e.get("roles", ["root"])), None)
            model = (first or {}).get("model", "engines")
        case _:
            model = values.get("model")
    return Path(str(model)).name


RESUMABLE = frozenset(
    {"n", "repeats", "scaffolds", "concurrency", "max_cost", "prices", "out"}
    | {"baselines", "judge_baselines", "baseline_seconds"}
    | {"api_key_env", "sub_api_key_env", "judge_api_key_env"}
)
"""Keys that a resumed run may change. Tasks, repeats and scaffolds may only be added to."""
RESUMABLE_OF_ENGINES = ("key_env", "concurrency", "timeout", "retries", "stream", "prices")
"""Keys of an entry of `[[engines]]` that a resumed run may change."""


def comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config without what a resumed run may change in its engines."""
    engines = [
        {key: value for key, value in entry.items() if key not in RESUMABLE_OF_ENGINES}
        for entry in values.get("engines", ())
    ]
    return {**values, "engines": engines}


def check_eval_resume(recorded: dict[str, Any], config: EvalRunConfig, where: Path) -> None:
    """Refuses to add to a run that was made with another config. Raises ConfigError that names the difference."""
    old, new = dict(recorded), config.as_toml()
    if gone := {entry["label"] for entry in old.get("environments", ())} - {config.environments[0].label}:
        raise ConfigError(f"{where} was made with the environments {', '.join(sorted(gone))} too; put them back")
    differences = config_differences(comparable(old), comparable(new), RESUMABLE)
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
