"""Makes what a run needs before an engine starts: the environment, its tasks, the scaffolds, the prices.

Mistakes in a config are found here, where they cost nothing yet.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

from pydantic import ValidationError

from rlm_env.environment import Environment
from rlm_env.evals.config import EvalConfig, EvalRunConfig
from rlm_env.evals.prices import Price, price_of
from rlm_env.registry import find_environment
from rlm_env.repl import ReplPools
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.models import ModelRef
from rlm_env.runs.options import environment_options
from rlm_env.runs.profile import load_profile
from rlm_env.scaffolds import Scaffold, config_type, make_scaffold
from rlm_env.task import Task, Tasks


def price_pair(config: EvalConfig) -> tuple[Price, Price] | None:
    """Prices of the root and the sub-LLM, by the names that the config gives them. Raises ConfigError."""
    if config.prices is None:
        return None
    return price_of(config.prices, config.model), price_of(config.prices, config.sub_model or config.model)


def make_environment(config: EvalRunConfig, root: ModelRef) -> Environment:
    """The environment with its options; `"@model"` is the root model's folder. Raises ConfigError."""
    options = environment_options(config.options, root.folder or config.tokens)
    try:
        return find_environment(config.environment, seed=config.seed, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"environment {config.environment}: {error}") from error


def load_tasks(config: EvalRunConfig, environment: Environment) -> list[Task]:
    """The tasks of a run. Raises ConfigError if there are none, or if one cannot be recorded."""
    try:
        tasks = Tasks(lambda: environment.tasks(config.split), config.split).take(config.n)
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"environment {config.environment} cannot make its tasks: {error}") from error
    if not tasks:
        raise ConfigError(f"environment {config.environment} has no tasks in its split '{config.split}'")
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise ConfigError(f"environment {config.environment} has two tasks with the id '{task.id}'")
        seen.add(task.id)
        try:
            json.dumps(task.info, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"task {task.id}: its info cannot be written as JSON: {error}") from error
    return tasks


@contextlib.asynccontextmanager
async def make_scaffolds(
    config: EvalRunConfig, environment: Environment, root: ModelRef, pools: ReplPools
) -> AsyncIterator[dict[str, Scaffold]]:
    """The scaffolds by name, closed at the end. Their REPLs come from `pools`. Raises ConfigError."""
    profile = load_profile(root.folder) if root.folder else {}
    profile.pop("renderer", None)
    scaffolds: dict[str, Scaffold] = {}
    try:
        for name in config.scaffolds:
            try:
                scaffolds[name] = make_scaffold(name, environment, config.rollout_options(name, profile), pools=pools)
            except ValidationError as error:
                raise ConfigError(
                    explain_validation(error, config_type(name), f"rollout of scaffold {name}")
                ) from error
            except (ValueError, OSError) as error:
                raise ConfigError(f"rollout of scaffold {name}: {error}") from error
        yield scaffolds
    finally:
        for scaffold in scaffolds.values():
            await scaffold.aclose()
