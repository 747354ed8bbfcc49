"""Rules about what models are told beside the context: that it does not give the right answers away.

Questions, the prompt of the scaffold `standard`, tips, and the names, docstrings and defaults of tools.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlm_env.context import context_text
from rlm_env.environment import Environment
from rlm_env.hub.announced import whole_words
from rlm_env.hub.contexts import LEAST_GOLDS, LEAST_TASKS, common_places, gold_forms
from rlm_env.hub.extras import Tools
from rlm_env.hub.findings import Finding
from rlm_env.hub.guarded import environment_code
from rlm_env.hub.reachable import golds_in_text
from rlm_env.hub.scores import Answers
from rlm_env.task import Task

RULE = "gold-in-prompt"
REMEDY = "tell models what to do and never what comes out; the right answer belongs into Task.gold"


def prompt_findings(environment: Environment, tasks: list[Task], answers: Answers, tools: Tools) -> list[Finding]:
    """A finding for each place in what models are told that gives the right answers away. `tools`: of some tasks, by
    id."""
    told = [
        (place, f"holds the gold answer in each of {len(tasks)} tasks")
        for place in common_places(tasks, answers, lambda task: task.question, "the question")
    ]
    told += [
        (place, f"holds the gold answer in each of {len(tasks)} tasks, beside the context")
        for place in common_places(tasks, answers, lambda task: _beside_context(environment, task), "standard_prompt()")
    ]
    golds = {form for task in tasks for form in gold_forms(task, answers)}
    if held := golds_in_text(environment.tips, golds):
        told.append(("tips", f"hold {len(held)} of {len(golds)} gold answers, such as {min(held)[:40]!r}"))
    told += _told_by_tools([task for task in tasks if task.id in tools], answers, tools)
    return [Finding(RULE, where, message, REMEDY) for where, message in told]


def _beside_context(environment: Environment, task: Task) -> str:
    """The prompt of the scaffold `standard` without the context and the question; nothing where the context is no text.
    Raises what making the prompt raises."""
    try:
        context = context_text(task.context)
    except UnicodeDecodeError:
        return ""
    with environment_code(RULE, task.id):
        prompt = environment.standard_prompt(task)
    return prompt.replace(context, "\n", 1).replace(task.question, "\n", 1)


def _told_by_tools(tasks: Sequence[Task], answers: Answers, tools: Tools) -> list[tuple[str, str]]:
    """What the descriptions of tools tell that differ from task to task. Those that are the same for every task may
    list what can be answered at all."""
    texts = [json.dumps([tool.schema for tool in tools[task.id]], ensure_ascii=False) for task in tasks]
    golds = {repr(task.gold) for task in tasks}
    if len(tasks) < LEAST_TASKS or len(golds) < LEAST_GOLDS or len(set(texts)) < len(golds):
        return []
    held = [
        any(_holds(text, form) for form in gold_forms(task, answers)) for task, text in zip(tasks, texts, strict=True)
    ]
    return [("tools()", f"describe the gold answer in each of {len(tasks)} tasks")] if all(held) else []


def _holds(text: str, form: str) -> bool:
    return any(whole_words(form, text))
