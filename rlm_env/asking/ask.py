"""`ask`: a question about a context, answered by models that are named.

The engines are opened for one question and closed after it. To ask several, open them once and use `rlm_env.solve`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rlm_env.asking.config import AskConfig, ask_config
from rlm_env.asking.documents import read_documents
from rlm_env.blocking import run_blocking
from rlm_env.events import OnEvent
from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import Rollout
from rlm_env.runs.config import merge
from rlm_env.runs.engines import EnginePool, Engines
from rlm_env.runs.models import resolve_engines
from rlm_env.runs.profile import rollout_profile
from rlm_env.solving import solve_as_configured
from rlm_env.task import Context
from rlm_env.tools import Tool


async def ask(
    question: str,
    context: Context,
    *,
    model: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    tools: Sequence[Tool | Callable[..., Any]] = (),
    on_event: OnEvent | None = None,
    engine_keys: dict[str, Any] | None = None,
    **rollout: Any,
) -> Rollout:
    """Answers a question about a context of any length; `.answer` of what is returned is the answer.

    `context`: a str, bytes, list or dict is taken as it is; a `Path`, or a list of them, is read as `rlm-env ask` does
    (documents become text, what is not meant for a model is left out; `include` and `exclude` are patterns in the
    syntax of .gitignore). `model` at `base_url`, an OpenAI-compatible endpoint whose key is in the environment variable
    `api_key_env`; without `base_url` a local vLLM is started with the model folder `model`. `engine_keys`: further keys
    of `AskConfig`, for example `{"sub_model": "..."}`. `tools`: typed, documented functions for the sub-LLMs.
    `on_event` is called with each event. `rollout`: fields of `RLMConfig`.

    Raises ConfigError for a mistake in what was asked for, RunStopped where an engine does not start, EngineUnavailable
    where it cannot be reached; `stop_reason` and `error` of the result say what else went wrong.
    """
    keys = {"model": model, "base_url": base_url, "api_key_env": api_key_env, **(engine_keys or {}), "rollout": rollout}
    config = ask_config({key: value for key, value in keys.items() if value is not None}, "ask()")
    if paths := _paths(context):
        context = read_documents(paths, include, exclude).context
    async with open_engines(config, Console(quiet=True)) as engines:
        options = rollout_options(config)
        return await solve_as_configured(question, context, engines.root, engines.sub, options, tools, on_event)


def ask_sync(question: str, context: Context, **options: Any) -> Rollout:
    """`ask` without `await`, with the same options; in a notebook too, where an event loop is running already."""
    return run_blocking(ask(question, context, **options))


@contextlib.asynccontextmanager
async def open_engines(config: AskConfig, console: Console) -> AsyncIterator[Engines]:
    """Root and sub-LLM, closed at the end. The log of a local vLLM is kept only where it does not start or fails.

    Raises ConfigError and RunStopped.
    """
    entries = config.checked_engines()
    models = resolve_engines(entries)
    logs = Path(tempfile.mkdtemp(prefix="rlm-env-ask-"))
    keep = True
    try:
        async with EnginePool(entries, models, logs, console, config.seed) as pool:
            engines = await pool.engines()
            keep = False
            yield engines
    except EngineUnavailable:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(logs, ignore_errors=True)


def rollout_options(config: AskConfig) -> dict[str, Any]:
    """Fields of `RLMConfig`: the model's own profile, and the config's over it. Raises ConfigError."""
    folder = resolve_engines({"root": config.root})["root"].profile_folder
    return merge(rollout_profile(folder), config.rollout)


def _paths(context: Context) -> list[Path]:
    """The files and folders that a context names; none for one that is there already."""
    named = context if isinstance(context, list) else [context]
    paths = [item for item in named if isinstance(item, Path)]
    return paths if len(paths) == len(named) else []
