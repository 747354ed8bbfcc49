"""The config of a question: which engines answer it, and how. The same keys and flags as in an eval."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from rlm_env.runs.engine_keys import EngineKeys
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.options import RolloutTable


class AskConfig(EngineKeys):
    """Engines and settings of a question. Unknown keys are errors."""

    example: ClassVar[str] = "rlm-env ask QUESTION FILE --model gpt-5-mini --base-url https://api.openai.com/v1"
    rollout: RolloutTable = Field(default_factory=dict)
    """Fields of `RLMConfig`, over the model's own profile."""
    seed: int = 0
    """Seed of a local vLLM."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "judge" in self.checked_engines():
            raise ValueError("a question without an environment has no judge")
        return self


def ask_config(values: dict[str, Any], where: str) -> AskConfig:
    """The config that these keys describe. Raises ConfigError, which says `where` the mistake is."""
    try:
        return AskConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, AskConfig, where)) from error
