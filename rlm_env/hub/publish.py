"""Publishes an environment package: refuses what is there, what nobody could install, what does not validate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlm_env.hub.findings import Findings
from rlm_env.hub.places.base import Place
from rlm_env.hub.project import Project
from rlm_env.hub.tools import ToolFailed
from rlm_env.hub.validate import Say, validate
from rlm_env.runs.errors import ConfigError


@dataclass(slots=True)
class Publication:
    """The outcome of publishing to one place or several."""

    findings: Findings
    """Of the places' refusals and of the validation. Nothing was uploaded if there are any."""
    said: dict[str, list[str]] = field(default_factory=dict)
    """Place -> what it said."""
    failed: dict[str, str] = field(default_factory=dict)
    """Place -> why its upload failed."""

    @property
    def ok(self) -> bool:
        return self.findings.ok and not self.failed


def publish(
    project: Project,
    places: Sequence[Place],
    work: Path,
    say: Say,
    index: Sequence[str] = (),
    *,
    dry_run: bool = False,
) -> Publication:
    """Validates the project and uploads it to each place; `work` is an empty folder, `index` are arguments of pip.

    All refusals come first, so that nothing is uploaded anywhere if one place refuses. An upload that fails is
    reported, and the other places get theirs. Raises ConfigError for a missing tool or login, and if a place cannot be
    asked.
    """
    findings = Findings(f"{project.name} {project.version} ({project.folder})")
    for place in places:
        say(f"asking {place.name} what it has")
        try:
            refusals = place.refusals(project)
        except ToolFailed as error:
            raise ConfigError(f"--to {place.name}: {error}\n{error.said}") from error
        findings.conclude(f"place {place.name}", refusals, "it does not have this version, and rlm-env can be had")
    if not findings.ok:
        findings.unchecked["validation"] = "refused before"
        return Publication(findings)
    validated = validate(project, work, say, index)
    findings.add(validated.findings)
    published = Publication(findings)
    if not findings.ok or dry_run or validated.built is None:
        return published
    for place in places:
        say(f"uploading to {place.name}")
        try:
            published.said[place.name] = place.upload(validated.staged, validated.built)
        except ToolFailed as error:
            published.failed[place.name] = f"{error}\n{error.said}" if "\n" in error.said else str(error)
    published.findings.passed["content"] = f"sha256 {validated.sha256}, also in the package"
    return published
