"""The environments of a training run as `RLMEnv`s: one for each stage of an environment's curriculum, and one for its
held-out evaluation.

What cannot be trained is refused here. The order of tasks is decided in `sampler.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_env.environment import Environment
from rlm_env.llm.base import LLM
from rlm_env.registry import UnknownOption, find_environment, takes_option
from rlm_env.repl import ReplPools
from rlm_env.runs.config import merge
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.options import MODEL_FOLDER, environment_options
from rlm_env.runs.profile import rollout_profile
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Tasks
from rlm_env.train.rl.config import TrainConfig, TrainEnvironment
from rlm_env.train.rl.sampler import AnyTask
from rlm_env.train.rl.trainable_sampling import check_sampling

NO_JUDGED = "no environment of the run has an option judge: the judge is asked nothing"


class EnvironmentMix:
    """The environments of a run, by label. All are made, and checked, before anything is started."""

    def __init__(
        self, config: TrainConfig, model: Path, pools: ReplPools | None = None, judge: LLM | None = None
    ) -> None:
        """`model`: the policy's folder, for its profile and for options that are `"@model"`. `pools`: where all
        environments get their REPLs; None: each starts its own. `judge`: for environments with an option `judge`.
        Raises ConfigError."""
        self._config = config
        self._judge = judge
        self._model = model
        self._pools = pools
        self._profile = rollout_profile(model)
        self.labels = [entry.label for entry in config.environments]
        self._scaffolds = {
            (entry.label, stage): self._make(entry, entry.curriculum[stage].options if stage >= 0 else {}, False)
            for entry in config.environments
            for stage in range(-1, len(entry.curriculum))
        }
        self._held_out = {entry.label: self._make(entry, entry.eval_options, True) for entry in config.environments}

    def scaffold(self, label: str, stage: int) -> RLMEnv:
        """The scaffold for the training tasks of an environment at a stage (-1: before the first one)."""
        return self._scaffolds[label, stage]

    def held_out(self, label: str) -> RLMEnv:
        """The scaffold for the held-out tasks of an environment."""
        return self._held_out[label]

    def tasks(self, label: str, stage: int) -> Tasks:
        """The training tasks of an environment at a stage."""
        return self.scaffold(label, stage).tasks("train")

    def any_task(self, label: str, stage: int) -> AnyTask | None:
        """What makes the training task at an index alone; None where that takes all before it."""
        environment = self.scaffold(label, stage).environment
        return partial(environment.task, "train") if environment.makes_any_task else None

    async def aclose(self) -> None:
        """Releases what scaffolds and environments hold."""
        await asyncio.gather(*(scaffold.aclose() for scaffold in (*self._scaffolds.values(), *self._held_out.values())))

    def _make(self, entry: TrainEnvironment, further_options: dict[str, Any], held_out: bool) -> RLMEnv:
        """A scaffold over an environment with its options."""
        environment = make_train_environment(self._config, entry, self._model, further_options, self._judge)
        return RLMEnv(environment, rollout_config(self._config, entry, self._profile, held_out), pools=self._pools)


def any_judged(config: TrainConfig) -> bool:
    """Whether an environment asks the judge."""
    return any(takes_option(entry.name, "judge") for entry in config.environments)


def make_train_environment(
    config: TrainConfig,
    entry: TrainEnvironment,
    model: Path | None,
    further_options: Mapping[str, Any],
    judge: LLM | None = None,
) -> Environment:
    """An environment of the run with its options, and `further_options` over them. Without the model's folder, options
    that need it are left out. `judge`: its option `judge`, if it has one. Raises ConfigError."""
    options = merge(merge(config.options, entry.options), dict(further_options))
    if judge is not None and takes_option(entry.name, "judge"):
        if "judge" in options:
            raise ConfigError("options.judge and an engine with the role judge do not go together")
        options["judge"] = judge
    if model is None:
        options = {key: value for key, value in options.items() if value != MODEL_FOLDER}
    try:
        return find_environment(entry.name, seed=config.seed, **environment_options(options, model))
    except UnknownOption as error:  # names the environment already, but not its label
        label = "" if entry.label == entry.name else f"{entry.label}: "
        raise ConfigError(f"{label}{error}") from error
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"environment {entry.label}: {error}") from error


def rollout_config(
    config: TrainConfig, entry: TrainEnvironment, profile: Mapping[str, Any], held_out: bool = False
) -> RLMConfig:
    """The settings of an environment's rollouts. `profile`: the model's own. Raises ConfigError where they cannot be
    trained, which those that are held out need not be."""
    values = merge(merge(dict(profile), config.rollout), entry.rollout)
    if held_out:
        values = merge(values, config.held_out.rollout)
    name = (
        f"held_out.rollout, or rollout settings of {entry.label}" if held_out else f"rollout settings of {entry.label}"
    )
    try:
        made = RLMConfig(**values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, RLMConfig, name)) from error
    if held_out:
        return made
    if config.samples.train_root:
        check_sampling(made.root, "rollout.root")
    if config.samples.train_sub_calls:
        check_sampling(made.sub, "rollout.sub")
    return made
