"""Makes what a run needs before an engine starts: the environment, its tasks, the scaffolds, the prices.

Mistakes in a config are found here, where they cost nothing yet.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rlm_env.environment import Environment
from rlm_env.evals.config import EvalRunConfig
from rlm_env.llm.base import LLM, LLMError
from rlm_env.llm.openai_chat import OpenAIChat
from rlm_env.registry import UnknownOption, find_environment, takes_option
from rlm_env.repl import ReplPools
from rlm_env.runs.engine_keys import EngineKeys
from rlm_env.runs.engine_table import by_role
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.judge import CountedJudge
from rlm_env.runs.models import ModelRef
from rlm_env.runs.options import environment_options
from rlm_env.runs.prices import Price, price_of
from rlm_env.runs.profile import rollout_profile
from rlm_env.scaffolds import Scaffold, config_type, make_scaffold
from rlm_env.scoring.errors import describe_exception
from rlm_env.task import LENGTH, Task, Tasks, context_length


@dataclass(frozen=True, slots=True)
class RolePrices:
    """The prices of a run's models."""

    root: Price
    sub: Price
    judge: Price | None = None

    @property
    def pair(self) -> tuple[Price, Price]:
        """The prices of root and sub-LLM."""
        return self.root, self.sub


def role_prices(config: EngineKeys, options: Mapping[str, Any] | None = None) -> RolePrices | None:
    """Prices of the models: those of their engines, else those of the price table. None without any. `options`: of the
    environment, which may describe its judge.

    Raises ConfigError if one is missing.
    """
    entries = by_role(config.engine_entries())
    if config.prices is None and not any(entry.prices for entry in entries.values()):
        return None
    prices = {role: entry.price or price_of(config.prices or {}, entry.model) for role, entry in entries.items()}
    described = (options or {}).get("judge")
    if "judge" not in prices and isinstance(described, dict) and "model" in described:
        prices["judge"] = price_of(config.prices or {}, str(described["model"]))
    return RolePrices(**prices)


def price_notes(config: EngineKeys) -> list[str]:
    """What tokens are counted at: a sentence with the prices that a config gives to its models, and their days."""
    entries = by_role(config.engine_entries()).values()
    prices = {entry.model: entry.prices or (config.prices or {}).get(entry.model) for entry in entries}
    told = [f"{model} {price}" for model, price in prices.items() if price is not None]
    return [f"US$ per million tokens: {'; '.join(told)}."] if told else []


def judge_of_options(config: EvalRunConfig) -> CountedJudge | None:
    """The judge that the environment's option `judge` describes as the options of an `OpenAIChat`, so that its tokens
    are counted too; None where there is none. Raises ConfigError."""
    described = config.options.get("judge")
    if not isinstance(described, dict) or "model" not in described or config.engine_of("judge") is not None:
        return None
    try:
        llm = OpenAIChat(**described)
    except (LLMError, TypeError, ValueError) as error:
        raise ConfigError(f"options.judge: {error}") from error

    async def engine() -> LLM:
        return llm

    return CountedJudge(llm.name, engine)


def environment_of(config: EvalRunConfig, root: ModelRef, judge: LLM | None = None) -> Environment:
    """The environment with its options; `"@model"` is the root model's folder, `judge` its option `judge`.

    Raises ConfigError.
    """
    options = environment_options(config.options, root.profile_folder or config.root.tokens)
    if judge is not None and takes_option(config.environment, "judge"):
        if "judge" in options and config.engine_of("judge") is not None:
            raise ConfigError("options.judge and an engine with the role judge do not go together")
        options["judge"] = judge
    try:
        return find_environment(config.environment, seed=config.seed, **options)
    except ConfigError:
        raise
    except UnknownOption as error:
        raise ConfigError(str(error)) from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"environment {config.environment}: its module cannot be imported ({error}); install what it needs"
        ) from error
    except Exception as error:
        raise ConfigError(f"environment {config.environment}: {describe_exception(error)}") from error


def load_tasks(config: EvalRunConfig, environment: Environment) -> list[Task]:
    """The tasks of a run. Raises ConfigError if there are none, or if one cannot be recorded."""
    try:
        tasks = Tasks(lambda: environment.tasks(config.split), config.split).take(config.n)
    except Exception as error:
        text = f"environment {config.environment} cannot make its tasks: {describe_exception(error)}"
        raise ConfigError(text) from error
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
        if (length := task.info.get(LENGTH)) is not None and context_length(task.info) is None:
            raise ConfigError(f"task {task.id}: {LENGTH} in its info is no number of tokens: {length!r}")
    return tasks


@contextlib.asynccontextmanager
async def make_scaffolds(
    config: EvalRunConfig, environment: Environment, root: ModelRef, pools: ReplPools
) -> AsyncIterator[dict[str, Scaffold]]:
    """The scaffolds by name, closed at the end. Their REPLs come from `pools`. Raises ConfigError."""
    profile = rollout_profile(root.profile_folder)
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
