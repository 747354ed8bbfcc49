"""The config of an eval: one validated object, from a TOML file, the command line, or both.

The tables that train configs have too are in `rlm_env/runs/options.py`. Whether an environment knows its options is
found when it is made (`setup.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from rlm_env.evals.conditions import Condition, read_conditions
from rlm_env.runs.config import RECORD, config_differences, merge, read_config_file
from rlm_env.runs.engine_keys import EngineKeys
from rlm_env.runs.engine_table import EngineEntry
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.options import (
    EnvironmentEntry,
    ScaffoldRolloutTable,
    apply_overrides,
    check_labels,
)
from rlm_env.scaffolds import SCAFFOLDS
from rlm_env.spelling import near_matches

EXAMPLE = "rlm-env eval oolong-rlm --model tiny-rlm"


class EvalEnvironment(EnvironmentEntry):
    """One environment of an eval. Its label is also the name of its folder, where there are several."""

    n: int | None = Field(default=None, ge=1)
    """Number of tasks; the config's own `n` if left out."""
    rollout: ScaffoldRolloutTable = Field(default_factory=dict)
    """For this environment alone, over the config's `[rollout]`."""


class EvalConfig(EngineKeys):
    """An eval on one environment or on several. Unknown keys are errors.

    Several share the model, the scaffolds and the engines. Each is a run in its own folder below `out`.
    """

    example: ClassVar[str] = EXAMPLE
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
    max_cost: float | None = Field(default=None, gt=0)
    """No further rollout starts once this many US dollars are spent; those in flight finish."""
    until: tuple[str, ...] = ()
    """Stop before all tasks once a test has decided between two scaffolds, for either of them: `["rlm>standard"]`.
    Several: once all are decided. `n` is then the most tasks."""
    until_level: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of runs in which that test may decide wrongly, over all conditions and environments together."""
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

    @field_validator("scaffolds", mode="before")
    @classmethod
    def _known_scaffolds(cls, value: Any) -> Any:
        """Takes a list or a text with commas, and refuses unknown scaffolds and repeated ones."""
        names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        if not names:
            raise ValueError("name at least one scaffold")
        for name in names:
            if name not in SCAFFOLDS:
                raise ValueError(f"unknown scaffold '{name}'{near_matches(str(name), SCAFFOLDS)}")
        if len(set(names)) < len(names):
            raise ValueError("a scaffold is named twice")
        return names

    @field_validator("until", mode="before")
    @classmethod
    def _conditions(cls, value: Any, info: ValidationInfo) -> tuple[str, ...]:
        """Takes a list or a text with commas, and refuses what cannot be decided in this run."""
        scaffolds = info.data.get("scaffolds")
        return tuple(map(str, read_conditions(value, scaffolds))) if scaffolds else ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuses keys that do not go together, and a limit of cost without prices."""
        roles = self.checked_engines()
        if self.max_cost is not None and (unpriced := self._unpriced(roles.values())):
            raise ValueError(
                f"max_cost needs prices: give --prices FILE.toml with the US dollars per million tokens, for example\n"
                f'  ["{unpriced}"]\n  prompt = 0.25\n  completion = 2.0'
            )
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

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Between which scaffolds the run shall decide."""
        return read_conditions(self.until, self.scaffolds)

    @property
    def is_matrix(self) -> bool:
        """True with several environments."""
        return len(self.environments) > 1

    def runs(self) -> dict[str, EvalRunConfig]:
        """The run on each environment, by label. What an entry sets for itself is in the tables of its run. They share
        `until_level` equally."""
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
                    "until_level": self.until_level / len(self.environments),
                }
            )
            for entry in self.environments
        }

    def as_toml(self) -> dict[str, Any]:
        """The keys that are set, as plain values; `model_validate` reads them back."""
        unused = set() if self.until else {"until", "until_level"}
        return self.model_dump(mode="json", exclude_none=True, exclude=unused)


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
            raise ConfigError(
                "--resume needs the run's folder: give --out FOLDER, or FOLDER/config.toml as the config; in Python "
                "resume=True needs out=FOLDER"
            )
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


def check_eval_resume(recorded: dict[str, Any], config: EvalRunConfig, where: Path, *, pilot: bool = False) -> None:
    """Refuses to add to a run that was made with another config, `recorded` in its config.toml. `pilot`: it was a
    pilot, after which it may be chosen how the eval ends. Raises ConfigError that names the difference."""
    old, new = {key: value for key, value in recorded.items() if key != RECORD}, config.as_toml()
    if gone := {entry["label"] for entry in old.get("environments", ())} - {config.environments[0].label}:
        raise ConfigError(f"{where} was made with the environments {', '.join(sorted(gone))} too; put them back")
    allowed = RESUMABLE | ({"until", "until_level"} if pilot else set())
    differences = config_differences(comparable(old), comparable(new), allowed)
    for key in ("n", "repeats"):
        if new[key] < old.get(key, 0):
            differences.append(f"{key} was {old[key]}, is now {new[key]} (it may only grow)")
    if config.until and new["repeats"] > old.get("repeats", 0) and not pilot:
        differences.append(f"repeats was {old['repeats']}, is now {new['repeats']} (with until it stays as it was)")
    if missing := set(old.get("scaffolds", ())) - set(new["scaffolds"]):
        differences.append(f"scaffolds was {old['scaffolds']}, now without {', '.join(sorted(missing))}")
    if differences:
        raise ConfigError(
            f"{where} was made with another config:\n  "
            + "\n  ".join(differences)
            + f"\nRepeat it as it was with `rlm-env eval {where}/config.toml --resume`, or choose another --out; "
            "in Python with the same arguments and resume=True, or another out."
        )
