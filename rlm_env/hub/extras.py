"""Rules about what an environment offers beside tasks and scores: tools, baselines, tips, options."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlm_env.environment import Environment
from rlm_env.hub.findings import Finding
from rlm_env.hub.guarded import environment_code, raised
from rlm_env.hub.scores import scored
from rlm_env.task import Task
from rlm_env.tools import Tool

Tools = dict[str, list[Tool]]
"""Id of a task -> its tools."""


def tool_findings(environment: Environment, tasks: Sequence[Task]) -> tuple[list[Finding], Tools]:
    """A finding for each tool without a docstring, types, or a description of each parameter, and for each name that
    two tools have; and the tools of each task by its id."""
    found: dict[Finding, None] = {}
    tools: Tools = {}
    for task in tasks:
        try:
            with environment_code("tools", task.id):
                given = list(environment.tools(task))
        except Exception as error:
            remedy = "let tools() work with the default options and for any task, or say what they need"
            found[Finding("tools", task.id, f"tools() {raised(error)}", remedy)] = None
            break
        tools[task.id] = []
        for function in given:
            try:
                tools[task.id].append(function if isinstance(function, Tool) else Tool(function))
            except (TypeError, ValueError) as error:
                name = getattr(function, "__name__", "a tool")
                remedy = "give it a docstring and types: models read both"
                found[Finding("tools", name, str(error), remedy)] = None
        found |= dict.fromkeys(_undescribed(tools[task.id]))
    return list(found), tools


def _undescribed(tools: Sequence[Tool]) -> list[Finding]:
    names = Counter(tool.name for tool in tools)
    found = [
        Finding("tools", name, f"{count} tools have this name", "name them apart: a model calls them by name")
        for name, count in names.items()
        if count > 1
    ]
    return found + [
        Finding(
            "tools",
            tool.name,
            f"its parameter {parameter!r} is not described",
            "describe it under Args: in the docstring",
        )
        for tool in tools
        for parameter, schema in tool.schema["function"]["parameters"]["properties"].items()
        if not schema.get("description")
    ]


async def baseline_findings(environment: Environment, tasks: Sequence[Task]) -> tuple[list[Finding], list[str]]:
    """A finding where there are no baselines, or one raises, returns no text, or uses the gold answer; their names."""
    try:
        with environment_code("baselines", "baselines()"):
            policies = environment.baselines() or {}
        if not isinstance(policies, Mapping):
            raise TypeError(f"baselines() returns a {type(policies).__name__}, not a dict")
    except Exception as error:
        remedy = "return a dict: name -> function from a task to an answer"
        return [Finding("baselines", "baselines()", raised(error), remedy)], []
    if not policies:
        remedy = "return at least one answer that needs no understanding, for example a guess, from baselines()"
        return [Finding("baselines", "baselines()", "there are none, so no score can be put in proportion", remedy)], []
    found: list[Finding] = []
    for name, policy in policies.items():
        for task in tasks:
            if problem := await _baseline_problem(environment, policy, task):
                remedy = "a baseline takes any task and returns text, from task.context and task.info alone"
                found.append(Finding("baselines", f"{name}, {task.id}", problem, remedy))
                break
    return found, list(policies)


def option_findings(make: Callable[..., Any]) -> tuple[list[Finding], list[str]]:
    """A finding for each option without a default; and the options' names."""
    parameters = [
        parameter
        for parameter in inspect.signature(make).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    found = [
        Finding("options", parameter.name, "it has no default", "give it one, so that the environment loads by name")
        for parameter in parameters
        if parameter.default is parameter.empty
    ]
    return found, [parameter.name for parameter in parameters]


async def _baseline_problem(environment: Environment, policy: Callable[[Task], str], task: Task) -> str | None:
    try:
        with environment_code("baselines", task.id):
            answer = policy(task)
            blind = policy(replace(task, gold=None))
        if not isinstance(answer, str):
            return f"returns a {type(answer).__name__}, not a str"
        await scored(environment, task, answer, rule="baselines")
    except Exception as error:
        return raised(error)
    return None if answer == blind else "answers otherwise where task.gold is hidden"
