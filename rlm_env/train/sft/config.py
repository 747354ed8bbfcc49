"""The configuration of `rlm-env sft`: one validated object, from a TOML file and the command line.

Not covered: the tables of the learner, which `rlm-env train` has too (`learner/config.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from rlm_env.rollout import StopReason
from rlm_env.runs.config import config_differences, merge, read_config_file, refuse_differences
from rlm_env.runs.config_table import Table
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.train.learner.config import CheckpointConfig, ModelConfig, OptimizerConfig, SamplesConfig
from rlm_env.train.report.tracking import TensorboardConfig, WandbConfig


class KeepConfig(Table):
    """Which rollouts are trained (rejection sampling)."""

    min_score: float = Field(default=1.0, ge=0, le=1)
    """Minimum score; 0 keeps all scored rollouts."""
    stop_reasons: tuple[StopReason, ...] = (StopReason.READY,)
    """How a rollout must have ended: by default with an answer, not by a limit."""
    scaffolds: tuple[str, ...] | None = None
    """None: all scaffolds."""
    environments: tuple[str, ...] | None = None
    """None: all environments."""
    min_turns: int = Field(default=1, ge=1)
    """Fewest replies of the root LLM."""
    max_turns: int | None = Field(default=None, ge=1)
    """Most replies of the root LLM."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum length of a rollout's longest sample; at most `trainer.pack_tokens`."""
    best_of: int | None = Field(default=None, ge=1)
    """Maximum number of rollouts of one task: those with the best score and, at equal scores, the fewest sampled
    tokens. Without it, easy tasks make up most of the data."""
    dedupe: bool = True
    """Keep only one of several rollouts of a task with identical root replies."""


class SFTConfig(Table):
    """Everything that determines a run of `rlm-env sft`."""

    model: str
    """The initial model: a model folder, a Hub id in the local cache, or `tiny-rlm`."""
    rollouts: tuple[str, ...] = Field(min_length=1)
    """Files of rollouts, or run folders with a rollouts.jsonl."""
    out: Path
    """The output folder; if left out, outputs/NAME after the config file, else outputs/sft-MODEL."""
    keep: KeepConfig = KeepConfig()
    samples: SamplesConfig = SamplesConfig()
    epochs: int = Field(default=1, ge=1)
    """Passes over the samples."""
    batch_size: int = Field(default=64, ge=1)
    """Samples per optimizer step."""
    max_steps: int | None = Field(default=None, ge=1)
    """Maximum number of optimizer steps; None: `epochs` alone decides."""
    held_out: float = Field(default=0.05, ge=0, lt=1)
    """Fraction of the tasks whose rollouts are held out to measure the loss."""
    held_out_every: int = Field(default=20, ge=1)
    """Steps between two measurements of the held-out loss; also measured before the first step and after the last."""
    seed: int = 0
    """Seeds the order of samples and the choice of held-out tasks."""
    trainer: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, schedule="cosine", final_fraction=0.1)
    checkpoint: CheckpointConfig = CheckpointConfig(every=50)
    wandb: WandbConfig | None = None
    tensorboard: TensorboardConfig | None = None

    @field_validator("optimizer", mode="before")
    @classmethod
    def _over_the_defaults(cls, value: Any) -> Any:
        """Keys missing from the table get the defaults of supervised training, not those of RL."""
        return {"lr": 1e-5, "schedule": "cosine", "final_fraction": 0.1, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.keep.max_turns is not None and self.keep.max_turns < self.keep.min_turns:
            raise ValueError(f"keep.max_turns ({self.keep.max_turns}) is below min_turns ({self.keep.min_turns})")
        return self

    def as_toml(self) -> dict[str, Any]:
        """The keys that are set, as plain values for TOML; the inverse is `SFTConfig.model_validate`."""
        return self.model_dump(mode="json", exclude_none=True)


def load_sft_config(path: Path | None, overrides: dict[str, Any] | None = None) -> SFTConfig:
    """The configuration from a TOML file (or none), with `overrides` merged in. Relative paths are relative to the
    current directory. Raises ConfigError that names key and remedy."""
    values = merge(read_config_file(path) if path else {}, overrides or {})
    if "out" not in values:
        values["out"] = f"outputs/{path.stem if path else 'sft-' + Path(str(values.get('model', ''))).name}"
    try:
        return SFTConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, SFTConfig, str(path) if path else "command line")) from error


RESUMABLE = frozenset({"out", "wandb", "tensorboard", "checkpoint", "held_out_every"})
"""Keys that may change when a run is resumed."""


def check_sft_resume(recorded: dict[str, Any], config: SFTConfig) -> None:
    """Raises ConfigError that lists the differences if a run cannot be resumed under this configuration."""
    refuse_differences(config.out, config_differences(recorded, config.as_toml(), RESUMABLE))
