"""Rules about what an environment offers beside tasks and scores: tools, baselines, tips, options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rlm_env.environment import Environment
from rlm_env.hub.findings import Finding
from rlm_env.hub.scores import scored
from rlm_env.task import Task
from rlm_env.tools import Tool


def undocumented_tools(environment: Environment, task: Task) -> tuple[list[Finding], list[str]]:
    """A finding for each tool without a docstring, types, or a description of each parameter; and the tools' names."""
    try:
        given = environment.tools(task)
    except Exception as error:
        remedy = "let tools() work with the default options, or say what they need"
        return [Finding("tools", task.id, f"tools() raises {type(error).__name__}: {error}", remedy)], []
    found: list[Finding] = []
    names: list[str] = []
    for function in given:
        try:
            tool = function if isinstance(function, Tool) else Tool(function)
        except ValueError as error:
            name = getattr(function, "__name__", "a tool")
            found.append(Finding("tools", name, str(error), "give it a docstring and types: models read both"))
            continue
        names.append(tool.name)
        for parameter, schema in tool.schema["function"]["parameters"]["properties"].items():
            if not schema.get("description"):
                remedy = "describe it under Args: in the docstring"
                found.append(Finding("tools", tool.name, f"its parameter {parameter!r} is not described", remedy))
    return found, names


async def baseline_findings(environment: Environment, tasks: Sequence[Task]) -> tuple[list[Finding], list[str]]:
    """A finding where there are no baselines, or one raises, returns no text, or uses the gold answer; their names."""
    policies = environment.baselines()
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
        answer = policy(task)
        blind = policy(replace(task, gold=None))
        if not isinstance(answer, str):
            return f"returns a {type(answer).__name__}, not a str"
        await scored(environment, task, answer)
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    return None if answer == blind else "answers otherwise where task.gold is hidden"
