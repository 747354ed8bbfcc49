"""The environments of a training run as `RLMEnv`s: one per environment and stage of its curriculum, and one each for
the held-out evaluation.

Covered: options, the settings of rollouts, what cannot be trained and is refused. Not covered: the order of tasks
(`sampler.py`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_env.environment import Environment
from rlm_env.llm.base import Sampling
from rlm_env.registry import find_environment
from rlm_env.runs.config import merge
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.profile import load_profile
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Tasks
from rlm_env.train.rl.config import EnvironmentConfig, TrainConfig

NEUTRAL = {"top_k": (0, -1), "min_p": (0, 0.0), "repetition_penalty": (1, 1.0)}
"""Values of further sampling settings under which the engine samples from the whole distribution."""
PENALTIES = ("presence_penalty", "frequency_penalty", "logit_bias", "allowed_token_ids", "bad_words")


class EnvironmentMix:
    """The environments of a run. All are made, and what is wrong with them is said, before anything is started."""

    def __init__(self, config: TrainConfig, model: Path) -> None:
        """`model`: the policy's folder, for its profile and for options that say `"@model"`. Raises ConfigError."""
        self._config = config
        self._model = model
        self._profile = load_profile(model)
        self._profile.pop("renderer", None)
        self._environments = {environment.name: environment for environment in config.environments}
        self._scaffolds = {
            (environment.name, stage): self._make(environment, stage)
            for environment in config.environments
            for stage in range(-1, len(environment.curriculum))
        }
        self._held_out = {environment.name: self._make_held_out(environment) for environment in config.environments}

    @property
    def names(self) -> list[str]:
        return list(self._environments)

    def scaffold(self, name: str, stage: int) -> RLMEnv:
        """What rolls out the tasks of an environment at a stage (-1: before the first one)."""
        return self._scaffolds[name, stage]

    def held_out(self, name: str) -> RLMEnv:
        """What rolls out the held-out tasks of an environment."""
        return self._held_out[name]

    def tasks(self, name: str, stage: int) -> Tasks:
        """The training tasks of an environment at a stage."""
        return self.scaffold(name, stage).tasks("train")

    async def aclose(self) -> None:
        """Ends all REPLs."""
        await asyncio.gather(*(scaffold.aclose() for scaffold in (*self._scaffolds.values(), *self._held_out.values())))

    def _make(self, config: EnvironmentConfig, stage: int) -> RLMEnv:
        laid_over = config.curriculum[stage].options if stage >= 0 else {}
        return RLMEnv(self._environment(config, laid_over), self._rollout_config(config))

    def _make_held_out(self, config: EnvironmentConfig) -> RLMEnv:
        return RLMEnv(self._environment(config, config.eval_options), self._rollout_config(config))

    def _environment(self, config: EnvironmentConfig, laid_over: dict[str, Any]) -> Environment:
        options = {
            key: str(self._model) if value == "@model" else value
            for key, value in merge(config.options, laid_over).items()
        }
        try:
            return find_environment(config.name, seed=self._config.seed, **options)
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"environment {config.name}: {error}") from error

    def _rollout_config(self, config: EnvironmentConfig) -> RLMConfig:
        values = merge(merge(self._profile, self._config.rollout), config.rollout)
        try:
            made = RLMConfig(**values)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, RLMConfig, f"rollout settings of {config.name}")) from error
        check_sampling(made.root, "rollout.root")
        if self._config.samples.train_sub_calls:
            check_sampling(made.sub, "rollout.sub")
        return made


def check_sampling(sampling: Sampling, where: str) -> None:
    """Refuses what makes the behavior distribution another one than softmax(logits / temperature).

    Raises ConfigError that names the setting: the trainer could not compute the same log-probabilities.
    """
    if sampling.temperature == 0:
        raise ConfigError(
            f"{where}.temperature is 0: greedy tokens have no log-probabilities to train on; set it above 0"
            + (" or samples.train_sub_calls = false" if where.endswith("sub") else "")
        )
    if sampling.top_p != 1:
        raise ConfigError(f"{where}.top_p is {sampling.top_p:g}: training needs the whole distribution; set it to 1")
    for name, value in sampling.extra.items():
        if name in PENALTIES or (name in NEUTRAL and value not in NEUTRAL[name]):
            raise ConfigError(f"{where}.extra.{name} is {value!r}: training needs the whole distribution; leave it out")
