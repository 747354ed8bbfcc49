"""What a training run is: one validated object, from a TOML file and the command line.

Covered: every key of a run and its parts, which of them go together, reading TOML, what may differ on resume.
Not covered: what the learner takes (`learner/config.py`), advantages (`advantage.py`), and whether an environment
knows its options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from rlm_env.runs.config import config_differences, read_config_file, refuse_differences
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.options import EngineOptions, EnvironmentEntry, RolloutTable, apply_overrides, check_labels
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.train.learner.config import CheckpointConfig, LossConfig, ModelConfig, OptimizerConfig, Part, SamplesConfig
from rlm_env.train.report.metrics import WandbConfig
from rlm_env.train.rl.advantage import AdvantageConfig


class SyncConfig(Part):
    """How new weights reach the engine."""

    method: Literal["disk", "lora"] = "disk"
    """`disk`: a folder that vLLM reloads; `lora`: the adapter alone."""
    check_tolerance: float | None = Field(default=None, gt=0)
    """Largest mean difference between the engine's and the trainer's log-probabilities; None: by type."""
    drain_seconds: float = Field(default=120.0, gt=0)
    """How long requests in flight may take to end before an update."""


class Stage(Part):
    """One stage of a curriculum: from this step on, these options of the environment."""

    from_step: int = Field(ge=0)
    options: dict[str, Any]


class EnvironmentConfig(Part):
    """One environment of the training mix."""

    name: str
    weight: float = Field(default=1.0, gt=0)
    """Share of the groups, relative to the other environments'."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the environment; `"@model"` stands for the model's folder."""
    eval_options: dict[str, Any] = Field(default_factory=dict)
    """Laid over `options` for the held-out evaluation, for example other lengths."""
    curriculum: tuple[Stage, ...] = ()
    """Options laid over `options` as training goes on; by the step for which a group is sampled."""
    rollout: dict[str, Any] = Field(default_factory=dict)
    """Fields of `RLMConfig` for this environment alone, over those of the run."""

    @field_validator("rollout")
    @classmethod
    def _known_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _rlm_fields(value)

    @field_validator("curriculum")
    @classmethod
    def _in_order(cls, value: tuple[Stage, ...]) -> tuple[Stage, ...]:
        steps = [stage.from_step for stage in value]
        if steps != sorted(set(steps)):
            raise ValueError(f"from_step must rise from stage to stage, got {steps}")
        return value


class PoolsConfig(Part):
    """Difficulty pools: tasks that teach nothing at the moment are asked less often.

    A pool is of tasks with equal `info[by]`, for example a length or a family; without `by`, of one task each,
    which has an effect only where a split is finite and asked again.
    """

    by: str | None = None
    easy: float = Field(default=0.95, ge=0, le=1)
    """A pool whose last groups scored at least this on average is easy."""
    hard: float = Field(default=0.0, ge=0, le=1)
    """A pool whose last groups scored at most this on average is hard."""
    keep_easy: float = Field(default=0.2, gt=0, le=1)
    """Share of an easy pool's tasks that is still asked."""
    keep_hard: float = Field(default=0.5, gt=0, le=1)
    """Share of a hard pool's tasks that is still asked."""
    window: int = Field(default=4, ge=1)
    """How many of a pool's last groups count."""


class GroupsConfig(Part):
    """How groups of rollouts are made and gathered to steps."""

    size: int = Field(default=8, ge=2)
    """Rollouts of one task, which are each other's baseline."""
    per_step: int = Field(default=8, ge=1)
    """Groups that one optimizer step trains."""
    max_off_policy_steps: int = Field(default=1, ge=0)
    """Most updates between the weights that sampled a rollout's first token and those that it trains. 0: the engine
    waits for the trainer; 1: they work side by side; 2: and the trainer does not wait for the slowest of a step."""
    concurrency: int = Field(default=64, ge=1)
    """Most rollouts in flight."""
    replace_zero_advantage: bool = True
    """Dynamic sampling: a group whose rollouts all have an advantage of 0 trains nothing and is replaced."""
    max_zero_advantage_share: float = Field(default=0.75, ge=0, lt=1)
    """Largest share of the groups made for a step that is replaced; beyond it, zero-advantage groups are kept."""
    timeout: float = Field(default=1800.0, gt=0)
    """Seconds after its start when a group is closed with the rollouts that have ended."""
    min_size: int = Field(default=2, ge=2)
    """A group with fewer scored rollouts is thrown away."""
    unfinished: Literal["score", "zero", "drop"] = "score"
    """What a rollout that a limit ended (turns, tokens, time, window) counts in training: its score, as in
    evaluations; nothing, so that handing in is learned; or it is left out of its group (the overlong filtering of
    DAPO, arXiv:2503.14476). The score on record is the official one in any case."""
    cost: Literal["sub_calls", "tokens"] = "sub_calls"
    """What `advantage.cost_weight` counts."""
    pools: PoolsConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_size > self.size:
            raise ValueError(f"min_size ({self.min_size}) is above size ({self.size})")
        return self


class HeldOutConfig(Part):
    """The periodic evaluation on the environments' `eval` split."""

    every: int | None = Field(default=10, ge=1)
    """Steps between two; before the first step and after the last one always. None: only these."""
    n: int = Field(default=32, ge=0)
    """Tasks of each environment; 0: no evaluation at all."""
    repeats: int = Field(default=1, ge=1)


class TrainConfig(Part):
    """Everything that decides a training run."""

    model: str
    """The policy to begin with: a model folder, a Hub id in the local cache, or `tiny-rlm`."""
    out: Path
    environments: tuple[EnvironmentConfig, ...] = Field(min_length=1)
    steps: int = Field(default=100, ge=1)
    seed: int = 0
    rollout: dict[str, Any] = Field(default_factory=dict)
    """Fields of `RLMConfig` for every environment, over the model's own profile."""
    allow_forks: bool = True
    """Whether a chat template that rewrites history may be trained: each rewritten turn becomes a sample of its own."""
    trainer: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    groups: GroupsConfig = GroupsConfig()
    samples: SamplesConfig = SamplesConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    loss: LossConfig = LossConfig()
    sync: SyncConfig = SyncConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    engine: EngineOptions = EngineOptions()
    wandb: WandbConfig | None = None

    @field_validator("rollout")
    @classmethod
    def _known_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _rlm_fields(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [environment.name for environment in self.environments]
        if len(set(names)) < len(names):
            raise ValueError(f"environments: a name occurs twice in {names}")
        if self.sync.method == "lora" and self.trainer.lora is None:
            raise ValueError('sync.method = "lora" needs trainer.lora; without an adapter use "disk"')
        if self.loss.preset == "sft":
            raise ValueError('loss.preset = "sft" looks at no reward; rlm-env sft trains on rollouts that were chosen')
        if self.loss.norm == "constant" and self.loss.norm_tokens is None:
            raise ValueError(
                'loss.norm = "constant" needs loss.norm_tokens: the most tokens that one rollout may train'
            )
        return self

    def as_toml(self) -> dict[str, Any]:
        """The keys that are set, as plain values; `TrainConfig.model_validate` reads them back."""
        return self.model_dump(mode="json", exclude_none=True)


def load_train_config(path: Path, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """A config from a TOML file with other values laid over it. Raises ConfigError that names key and remedy."""
    values = merge(read_config_file(path), overrides or {})
    values.setdefault("out", f"outputs/{path.stem}")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, TrainConfig, str(path))) from error


RESUMABLE = frozenset({"steps", "out", "wandb", "checkpoint", "held_out", "engine"})
"""Keys that a resumed run may change; `steps` may only grow, and only under a constant schedule."""


def check_train_resume(recorded: dict[str, Any], config: TrainConfig) -> None:
    """Refuses to go on with a run under another config. Raises ConfigError that names the differences."""
    new = config.as_toml()
    differences = config_differences(recorded, new, RESUMABLE)
    if new["steps"] < recorded["steps"]:
        differences.append(f"steps was {recorded['steps']}, is now {new['steps']} (it may only grow)")
    if new["steps"] != recorded["steps"] and config.optimizer.schedule != "constant":
        differences.append(f"steps was {recorded['steps']}: a {config.optimizer.schedule} schedule ends there")
    refuse_differences(config.out, differences)


def _rlm_fields(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if key not in RLMConfig.model_fields:
            raise ValueError(f"unknown key '{key}'{near(key, RLMConfig.model_fields)}")
    return value
