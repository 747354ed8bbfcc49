"""What supervised training on saved rollouts is: one validated object, from a TOML file and the command line.

Covered: every key of `rlm-env sft`, which rollouts it keeps, what may differ on resume. Not covered: the trainer's
parts, which are those of `rlm-env train` (`run_config.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from rlm_env.rollout import StopReason
from rlm_env.runs.config import config_differences, merge, read_config_file
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.train.learner.config import CheckpointConfig, ModelConfig, OptimizerConfig, Part, SamplesConfig
from rlm_env.train.rl.config import WandbConfig, refuse_differences


class KeepConfig(Part):
    """Which rollouts are trained: rejection sampling."""

    min_score: float = Field(default=1.0, ge=0, le=1)
    """The least score; 0 keeps all that have one."""
    stop_reasons: tuple[StopReason, ...] = (StopReason.READY,)
    """How a rollout has to have ended: by default with an answer of its own, not by a limit."""
    scaffolds: tuple[str, ...] | None = None
    """None: every scaffold."""
    environments: tuple[str, ...] | None = None
    """None: every environment."""
    min_turns: int = Field(default=1, ge=1)
    max_turns: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """The most tokens of a rollout's longest sample; never more than a pack holds."""
    best_of: int | None = Field(default=None, ge=1)
    """The most rollouts of one task: those of the best score, and of equal scores the ones with fewer sampled
    tokens. Without it, easy tasks make up most of the data."""
    dedupe: bool = True
    """Whether of rollouts of one task in which the root said the same, one is enough."""


class SFTConfig(Part):
    """Everything that decides a run of `rlm-env sft`."""

    model: str
    """The model to begin with: a model folder, a Hub id in the local cache, or `tiny-rlm`."""
    rollouts: tuple[str, ...] = Field(min_length=1)
    """Files of rollouts, or run folders that hold a rollouts.jsonl."""
    out: Path
    keep: KeepConfig = KeepConfig()
    samples: SamplesConfig = SamplesConfig()
    train_root: bool = True
    """Whether the root's tokens are trained; without, the sub-calls' alone."""
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=64, ge=1)
    """Samples of one optimizer step."""
    max_steps: int | None = Field(default=None, ge=1)
    """Where the run ends, if that is before the last epoch does."""
    held_out: float = Field(default=0.05, ge=0, lt=1)
    """Share of the tasks whose rollouts only measure."""
    held_out_every: int = Field(default=20, ge=1)
    """Steps between two measurements of the held-out loss; before the first and after the last step always."""
    seed: int = 0
    trainer: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, schedule="cosine", final_fraction=0.1)
    checkpoint: CheckpointConfig = CheckpointConfig(every=50)
    wandb: WandbConfig | None = None

    @field_validator("optimizer", mode="before")
    @classmethod
    def _over_the_defaults(cls, value: Any) -> Any:
        """What is left out of the table keeps the value it has here, not the one it has in RL."""
        return {"lr": 1e-5, "schedule": "cosine", "final_fraction": 0.1, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.train_root and not self.samples.train_sub_calls:
            raise ValueError("train_root and samples.train_sub_calls are both off: nothing would be trained")
        if self.keep.max_turns is not None and self.keep.max_turns < self.keep.min_turns:
            raise ValueError(f"keep.max_turns ({self.keep.max_turns}) is below min_turns ({self.keep.min_turns})")
        return self

    def as_toml(self) -> dict[str, Any]:
        """The keys that are set, as plain values; `SFTConfig.model_validate` reads them back."""
        return self.model_dump(mode="json", exclude_none=True)


def load_sft_config(path: Path | None, overrides: dict[str, Any] | None = None) -> SFTConfig:
    """A config from a TOML file (or none) with other values laid over it. Raises ConfigError that names key and
    remedy. Relative paths are relative to the current directory."""
    values = merge(read_config_file(path) if path else {}, overrides or {})
    if "out" not in values:
        values["out"] = f"outputs/{path.stem if path else 'sft-' + Path(str(values.get('model', ''))).name}"
    try:
        return SFTConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, SFTConfig, str(path) if path else "command line")) from error


RESUMABLE = frozenset({"out", "wandb", "checkpoint", "held_out_every"})
"""Keys that a resumed run may change."""


def check_resume(recorded: dict[str, Any], config: SFTConfig) -> None:
    """Refuses to go on with a run under another config. Raises ConfigError that names the differences."""
    refuse_differences(config.out, config_differences(recorded, config.as_toml(), RESUMABLE))
