"""Checks an environment in seconds: its tasks, scores, tools, baselines, and what of it a REPL can reach.

The rules themselves are in `task_rules.py`, `scores.py`, `extras.py`, `contexts.py`, `leftover.py` and `reachable.py`.
Of the package around the environment (README, license, version, wheel) only prose that is left from the template is
looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rlm_env.environment import Environment
from rlm_env.hub import contexts, extras, prompts, reachable, sameness, scores, task_rules
from rlm_env.hub.findings import Finding, Findings
from rlm_env.hub.guarded import NoEnd, environment_code, raised
from rlm_env.hub.leftover import template_prose
from rlm_env.hub.project import PYPROJECT
from rlm_env.origin import Origin, origin_of
from rlm_env.registry import FOLDER, environment_maker, find_environment, other_places
from rlm_env.repl import ReplError
from rlm_env.runs.errors import ConfigError
from rlm_env.spelling import near_matches
from rlm_env.task import Task
from rlm_env.toml_file import read_toml, table_at

TASKS = 20
"""Tasks of each split that are looked at."""
JUDGED = 3
"""Tasks whose answers a judge is asked about."""
TOOLED = 5
"""Tasks whose tools are looked at."""
RULES = (
    "loads",
    "options",
    "template",
    "tasks",
    "ids",
    "splits",
    "same-bytes",
    "task-by-index",
    "perfect-answer",
    "empty-answer",
    "other-answer",
    "score",
    "judge",
    "tools",
    "baselines",
    "context-type",
    "gold-in-context",
    "info-in-context",
    "gold-in-prompt",
    "package-in-repl",
    "gold-in-files",
)


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is to be checked."""

    name: str
    options: Mapping[str, Any]
    """Options of the environment."""
    tasks: int = TASKS
    """Of each split."""
    seed: int = 0
    judge: bool = False
    """Ask the environment's judge. It may cost money."""


async def check_environment(request: CheckRequest) -> Findings:
    """Applies all rules to the environment of that name.

    Raises ConfigError for an unknown name, and if the package allows a rule that does not exist.
    """
    try:
        origin = origin_of(request.name)
    except (ValueError, ImportError) as error:
        raise ConfigError(str(error)) from error
    findings = Findings(f"{request.name} ({origin.package} {origin.version}, content {origin.sha256[:12]})")
    allow = {} if origin.project is None else allowed_rules(origin.project / PYPROJECT)
    try:
        await _check(request, origin, findings, allow)
    except NoEnd as stuck:
        findings.found.append(stuck.finding)
        findings.unchecked["the rules after it"] = f"{stuck.finding.rule} did not come to an end"
    return findings


async def _check(request: CheckRequest, origin: Origin, findings: Findings, allow: dict[str, str]) -> None:
    """Raises NoEnd."""
    try:
        with environment_code("loads", request.name):
            make = environment_maker(request.name)
            found, names = extras.option_findings(make)
            findings.conclude("options", found, ", ".join(names) or "none", allow)
            environment = find_environment(request.name, request.seed, **request.options)
    except Exception as error:
        findings.conclude("loads", [Finding("loads", request.name, raised(error), "make it load by name")], "")
        return
    elsewhere = [
        Finding("loads", request.name, f"{place} declares an environment of this name too", "rename one of them")
        for place in other_places(request.name)
    ]
    findings.conclude("loads", elsewhere, "by name" if request.options else "by name, with its default options", allow)
    left = template_prose(origin.folder, origin.project)
    findings.conclude("template", left, "nothing that rlm-env new wrote about its own task is out of place", allow)
    if origin.project is None and (sources := FOLDER / origin.module).is_dir():
        installed = f"{request.name} is the installed {origin.package} {origin.version}"
        findings.unchecked[str(sources)] = f"{installed}; pip install -e {sources} to check these"
    try:
        await _Check(request, origin, environment, findings, allow).run()
    finally:
        await environment.aclose()


def allowed_rules(pyproject: Path) -> dict[str, str]:
    """Rule -> the reason why a package's pyproject.toml allows its findings. Raises ConfigError for unknown rules."""
    allow = table_at(read_toml(pyproject, ConfigError), "tool", "rlm-env", "check", "allow")
    for rule, reason in allow.items():
        where = f"{pyproject}, [tool.rlm-env.check.allow]"
        if rule not in RULES:
            raise ConfigError(f"{where}: there is no rule '{rule}'{near_matches(rule, RULES)}")
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigError(f"{where}: give the reason for '{rule}' as text")
    return allow


@dataclass(slots=True)
class _Check:
    """One environment under check."""

    request: CheckRequest
    origin: Origin
    environment: Environment
    findings: Findings
    allow: dict[str, str]

    async def run(self) -> None:
        by_split, missing = task_rules.first_tasks(self.environment, self.request.tasks)
        tasks = [task for pair in zip_longest(*by_split.values()) for task in pair if task is not None]
        counted = " and ".join(f"{len(found)} of {split}" for split, found in by_split.items())
        unreadable = task_rules.unreadable_contexts(tasks)
        self._conclude("tasks", missing + unreadable + task_rules.unstorable_info(tasks), counted)
        if not tasks or unreadable:
            self.findings.unchecked["the other rules"] = "the tasks come first"
            return
        repeated, listed = task_rules.repeated_ids(self.environment)
        self._conclude("ids", repeated, f"{listed} are unique")
        self._conclude("splits", task_rules.shared_tasks(by_split), "train and eval share no task")
        self._check_sameness(by_split)
        answers = await self._check_scores(tasks)
        tools = await self._check_extras(tasks)
        self._conclude("context-type", contexts.context_types(tasks), "plain data")
        self._conclude("gold-in-context", contexts.gold_places(tasks, answers), "no place holds it in every task")
        self._conclude("info-in-context", contexts.info_places(tasks), "Task.info stands in no context")
        self._check_prompts(tasks, answers, tools)
        await self._check_files(tasks, answers)

    def _conclude(self, rule: str, found: list[Finding], seen: str) -> None:
        self.findings.conclude(rule, found, seen, self.allow)

    async def _check_scores(self, tasks: list[Task]) -> scores.Answers:
        answers, found = await scores.perfect_answers(self.environment, tasks)
        self._conclude("perfect-answer", found, f"scores 1 in {len(tasks)} tasks")
        self._conclude("empty-answer", await scores.empty_answers(self.environment, tasks), "scores 0")
        others = await scores.other_answers(self.environment, tasks, answers)
        if len({repr(task.gold) for task in tasks}) == 1:
            message = f"all {len(tasks)} tasks have the same right answer"
            others.append(Finding("other-answer", "Task.gold", message, "let the right answers differ"))
        self._conclude("other-answer", others, "the answer to another task scores less than 1")
        steady = await scores.unsteady_scores(self.environment, tasks[:JUDGED], answers)
        self._conclude("score", steady, "the same answer gets the same score and finite metrics")
        await self._check_judge(tasks[:JUDGED], answers)
        return answers

    async def _check_judge(self, tasks: list[Task], answers: scores.Answers) -> None:
        if type(self.environment).judge is Environment.judge:
            return
        if not self.request.judge:
            self.findings.unchecked["judge"] = (
                "it costs calls of an LLM; --judge asks it, with the environment's options for it given by --set"
            )
            return
        _, found = await scores.perfect_answers(self.environment, tasks, ask_judge=True)
        found += await scores.empty_answers(self.environment, tasks, ask_judge=True)
        found += await scores.other_answers(self.environment, tasks, answers, ask_judge=True)
        found = [Finding("judge", one.where, f"with its judge, {one.message}", one.remedy) for one in found]
        self._conclude("judge", found, f"asked about {len(tasks)} tasks: right, empty and wrong answers are told apart")

    def _check_sameness(self, by_split: dict[str, list[Task]]) -> None:
        name, options, seed = self.request.name, self.request.options, self.request.seed
        found = sameness.listed_again(self.environment, by_split)
        found += sameness.other_bytes(name, options, seed, by_split)
        self._conclude("same-bytes", found, "a second listing and another process make the same")
        by_index = sameness.tasks_by_index(self.environment, by_split, self.request.tasks)
        self._conclude("task-by-index", by_index, "task(split, index) is the task at that place, and none outside")

    def _check_prompts(self, tasks: list[Task], answers: scores.Answers, tools: extras.Tools) -> None:
        try:
            found = prompts.prompt_findings(self.environment, tasks, answers, tools)
        except Exception as error:
            remedy = "let it return a str for any task"
            found = [Finding("gold-in-prompt", "standard_prompt()", raised(error), remedy)]
        self._conclude("gold-in-prompt", found, "neither question nor standard prompt, tips or tools tell it")

    async def _check_extras(self, tasks: list[Task]) -> extras.Tools:
        found, tools = extras.tool_findings(self.environment, tasks[:TOOLED])
        named = dict.fromkeys(tool.name for some in tools.values() for tool in some)
        self._conclude("tools", found, ", ".join(named) or "none")
        found, names = await extras.baseline_findings(self.environment, tasks[:JUDGED])
        self._conclude("baselines", found, ", ".join(names))
        return tools

    async def _check_files(self, tasks: list[Task], answers: scores.Answers) -> None:
        golds = {form for task in tasks for form in contexts.gold_forms(task, answers)}
        try:
            found, tried = await reachable.reachable_files(self.origin, golds)
        except ReplError as error:
            why = f"no REPL can be started here ({error})"
            self.findings.unchecked |= {"package-in-repl": why, "gold-in-files": why}
            return
        for rule in ("package-in-repl", "gold-in-files"):
            self._conclude(rule, [finding for finding in found if finding.rule == rule], tried)
