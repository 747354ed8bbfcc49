"""Validates an environment package as strangers get it: built, installed in a fresh environment, evaluated there.

What can be said without building is in `metadata.py`, what a check of the environment says in `check.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_env.hub.build import Built, build, core_wheel, wheel_findings
from rlm_env.hub.check import allowed_rules
from rlm_env.hub.classification import UNCLASSIFIED, hub_class
from rlm_env.hub.findings import Finding, Findings
from rlm_env.hub.leftover import template_prose
from rlm_env.hub.metadata import metadata_findings, readme_findings, requirement_findings
from rlm_env.hub.project import PYPROJECT, Project, stage_project
from rlm_env.hub.tools import FreshVenv, ToolFailed, fresh_environ, run_tool
from rlm_env.origin import content_files

TRIED = 2
"""Tasks that are evaluated."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Validated:
    """What came of it. `built` and `staged` lie in the work folder; None where it did not come so far."""

    project: Project
    findings: Findings
    sha256: str
    staged: Project
    built: Built | None

    @property
    def hub_class(self) -> str | None:
        """What the Environments Hub would make of the wheel's requirements."""
        return None if self.built is None else hub_class(self.built.requirements)

    def lines(self) -> list[str]:
        """The findings, and what was built."""
        said = self.findings.lines()
        if self.built is not None:
            size = self.built.wheel.stat().st_size
            said.append(f"  wheel        {self.built.wheel.name}, {size:,} bytes; content {self.sha256[:12]}")
            said.append(f"  hub          {self.hub_class}, by its requirements{_hub_note(self.hub_class)}")
        return said


def validate(project: Project, work: Path, say: Say, index: Sequence[str] = ()) -> Validated:
    """Validates the project; `work` is an empty folder for copies and builds, `index` are further arguments of pip."""
    findings = Findings(f"{project.name} {project.version} ({project.folder})")
    staged, sha256 = stage_project(project, work / "project")
    say("looking at its metadata")
    findings.conclude("metadata", metadata_findings(project), "version, description, license, tags, Python")
    findings.conclude(
        "requirements", requirement_findings(project), ", ".join(project.metadata.get("dependencies", []))
    )
    findings.conclude("content", left_out(project, staged), "every file of the package is published")
    findings.conclude("readme", readme_findings(project), "in the hub's shape; its arguments are the options")
    left = template_prose(project.content_folder, project.folder)
    findings.conclude(
        "template", left, "nothing is left of the template's task", allowed_rules(project.folder / PYPROJECT)
    )
    if not findings.ok:
        findings.unchecked["wheel, check and eval"] = "the findings come first"
        return Validated(project, findings, sha256, staged, None)
    built: Built | None = None
    try:
        say("building wheel and source archive")
        built = build(staged, work / "dist")
        command = [sys.executable, "-m", "twine", "check", "--strict", str(built.wheel), str(built.archive)]
        run_tool("twine check", command)
        findings.conclude(
            "wheel", wheel_findings(staged, built), "twine check passed; one package, its license, its hash"
        )
        _validate_installed(staged, built, sha256, work, findings, say, index)
    except ToolFailed as error:
        remedy = f"mend what it says: {error.said}" if "\n" not in error.said else f"see:\n{error.said}"
        findings.conclude("tools", [Finding("tools", project.name, str(error), remedy)], "")
    return Validated(project, findings, sha256, staged, built)


def left_out(project: Project, staged: Project) -> list[Finding]:
    """A finding for each file of the package that its clean copy lacks."""
    remedy = "put the file itself into the package: links and what is made by tools are not published"
    lacking = set(content_files(project.content_folder)) - set(content_files(staged.content_folder))
    return [
        Finding("content", f"{project.module}/{name}", "it would not be published", remedy) for name in sorted(lacking)
    ]


def _validate_installed(
    project: Project, built: Built, sha256: str, work: Path, findings: Findings, say: Say, index: Sequence[str]
) -> None:
    """The part that happens in a fresh virtual environment. Raises ToolFailed."""
    say("installing it in a fresh virtual environment")
    allow = allowed_rules(project.folder / PYPROJECT)
    venv = FreshVenv.make(work / "venv")
    core = core_wheel(work / "core")
    venv.install([str(built.wheel)], [*(("--find-links", str(core.parent)) if core else ()), *index])
    findings.conclude("install", [], "in a fresh virtual environment" + (", rlm-env from its sources" if core else ""))
    for name in project.environments:
        say(f"checking {name} as it is installed")
        add_check_findings(findings, name, _checked(venv, name), allow)
        say(f"evaluating {TRIED} tasks of {name} with a model that knows the answers")
        trial = _tried(venv, name)
        findings.conclude(
            f"eval of {name}", _trial_findings(name, trial, sha256), f"{len(trial['rows'])} rollouts score 1"
        )


def add_check_findings(findings: Findings, name: str, checked: Findings, allow: Mapping[str, str]) -> None:
    """Adds what the check of an installed environment found. `allow` is the project's, which an installation lacks."""
    findings.found += [one for one in checked.found if one.rule not in allow]
    findings.allowed |= {f"{one.rule} of {name}": allow[one.rule] for one in checked.found if one.rule in allow}
    findings.unchecked |= {f"{what} of {name}": why for what, why in checked.unchecked.items()}
    findings.passed[f"check of {name}"] = f"{len(checked.passed)} rules"


def _checked(venv: FreshVenv, name: str) -> Findings:
    """What `rlm-env check` says there; its exit code is 1 where it has findings."""
    command = [venv.python, "-m", "rlm_env.cli", "check", name, "--json"]
    said = run_tool(f"rlm-env check {name}", command, cwd=venv.folder, environ=fresh_environ(), answers=True)
    return Findings.from_dict(json.loads(said))


def _tried(venv: FreshVenv, name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as elsewhere:  # no checkout's environments/ may be found
        command = [venv.python, "-m", "rlm_env.hub.trial", name, str(TRIED)]
        said = run_tool(f"evaluating {name}", command, cwd=Path(elsewhere), environ=fresh_environ())
    return json.loads(said.splitlines()[-1])


def _trial_findings(name: str, trial: dict[str, Any], sha256: str) -> list[Finding]:
    rule = f"eval of {name}"
    found: list[Finding] = []
    for row in trial["rows"]:
        where = f"{row['task_id']}, scaffold {row['scaffold']}"
        if row["reward"] is None:
            message = f"{row['outcome']}: {row['error']}"
            found.append(Finding(rule, where, message, "run rlm-env eval on it and mend what fails"))
        elif row["reward"] < 1.0 and trial["told_apart"]:
            message = f"a model that knows the answer scores {row['reward']:g}"
            found.append(Finding(rule, where, message, "let the score depend on the answer alone"))
    if trial["sha256"] != sha256:
        message = f"the installed package has the content {trial['sha256'][:12]}, not {sha256[:12]}"
        found.append(Finding(rule, name, message, "let the build change no file of the package"))
    return found


def _hub_note(found: str | None) -> str:
    if found != UNCLASSIFIED:
        return ""
    return " (right without a hard requirement of verifiers: rlm-env publish declares --runtime v1)"
