"""Plain inference: a question about a context, no environment and no score."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlm_env.blocking import run_blocking
from rlm_env.environment import Environment
from rlm_env.events import OnEvent
from rlm_env.folder import Folder, choose_files
from rlm_env.llm.base import LLM, Sampling
from rlm_env.rollout import Rollout
from rlm_env.scaffolds.config import config_with
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Context, Split, Task
from rlm_env.tools import Tool


class Questions(Environment):
    """An environment for questions that somebody asks: it has no tasks of its own, and no right answers."""

    name = "solve"

    def __init__(self, tools: Sequence[Tool | Callable[..., Any]] = ()) -> None:
        """`tools`: functions that sub-LLMs may call."""
        self._tools = tools

    def tasks(self, split: Split) -> list[Task]:
        return []

    def score(self, task: Task, rollout: Rollout) -> float:
        raise ValueError("a question without an environment has no score")

    def tools(self, task: Task) -> Sequence[Tool | Callable[..., Any]]:
        return self._tools


async def solve(
    question: str,
    context: Context,
    root: LLM,
    sub: LLM | None = None,
    *,
    sampling: Sampling | None = None,
    sub_sampling: Sampling | None = None,
    tools: Sequence[Tool | Callable[..., Any]] = (),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    on_event: OnEvent | None = None,
    **config: Any,
) -> Rollout:
    """Answers one question about a context of any length with an RLM; `rollout.answer` is the answer.

    `sampling`: how replies are sampled (temperature, max_tokens, ...), those of sub-LLMs too unless `sub_sampling` is
    given. `tools`: typed, documented functions that the sub-LLMs may call. `on_event` is called with each event.
    `config`: further fields of `RLMConfig`.

    Of a folder, the model gets what git does not ignore and what is text, without `.git` and files that usually hold
    secrets (`.env`, keys); `include` and `exclude` are patterns in the syntax of .gitignore (see `choose_files`).
    `rollout.info["folder"]` says what was left out.

    Raises EngineUnavailable when the engine cannot be reached, OSError where there is no such file, TypeError and
    ValueError for a mistake in what was asked for; `rollout.stop_reason` and `rollout.error` say what else went wrong.
    """
    if sampling is not None:
        config["root"] = sampling
    if (of_subs := sub_sampling or sampling) is not None:
        config["sub"] = of_subs
    context = await asyncio.to_thread(chosen_context, context, include, exclude)
    return await solve_as_configured(question, context, root, sub, config, tools, on_event)


async def solve_as_configured(
    question: str,
    context: Context,
    root: LLM,
    sub: LLM | None,
    config: Mapping[str, Any],
    tools: Sequence[Tool | Callable[..., Any]] = (),
    on_event: OnEvent | None = None,
) -> Rollout:
    """`solve` with all fields of `RLMConfig` in one mapping, those of the name `root` and `sub` too, and with a context
    that has been chosen already."""
    task = Task(question, context, id="question")
    async with RLMEnv(Questions(tools), config_with(config)) as env:
        rollout = await env.rollout(task, root, sub, on_event=on_event)
    if isinstance(context, Folder):
        rollout.info["folder"] = context.summary()
    return rollout


def solve_sync(question: str, context: Context, root: LLM, sub: LLM | None = None, **options: Any) -> Rollout:
    """`solve` without `await`, with the same options; in a notebook too, where an event loop is running already."""
    return run_blocking(solve(question, context, root, sub, **options))


def chosen_context(context: Context, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Context:
    """The context that a model gets of what a person hands over: of a folder, its files without those that are not
    meant to be read; anything else as it is.

    Raises FileNotFoundError for a path to nothing, ValueError for a pipe or device and for patterns where there is no
    folder, and what
    `choose_files` raises.
    """
    if isinstance(context, Path):
        if context.is_dir():
            return choose_files(context, include, exclude)
        if not context.exists():
            raise FileNotFoundError(f"context: there is no file or folder {context}")
        if not context.is_file():  # a pipe would be waited for
            raise ValueError(f"context: {context} is neither a file nor a folder; read it and give its text")
    if any(include) or any(exclude):
        raise ValueError("include and exclude choose files of a folder: give its pathlib.Path as the context")
    return context
