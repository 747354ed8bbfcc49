"""What a place does for `rlm-env publish`, and pip's answers about what an index has."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

from rlm_env.hub.build import Built
from rlm_env.hub.findings import Finding
from rlm_env.hub.project import Project
from rlm_env.hub.tools import ToolFailed, run_tool

_ABSENT = ("No matching distribution found", "Could not find a version that satisfies")
_UNREACHABLE = ("Retrying (Retry", "connection broken", "Could not fetch URL", "Connection error")


class Place(ABC):
    """Somewhere to publish to."""

    name: str
    """As `--to` takes it."""

    @abstractmethod
    def refusals(self, project: Project) -> list[Finding]:
        """Why the project cannot be published here, found before anything is built.

        Raises ConfigError if a tool or a login is missing, ToolFailed if the place cannot be asked.
        """

    @abstractmethod
    def upload(self, staged: Project, built: Built) -> list[str]:
        """Uploads; returns lines for people: what happened, how to install it elsewhere.

        Raises ToolFailed with the place's own words if it refuses.
        """


def pip_finds(requirement: str, arguments: Sequence[str] = ()) -> bool:
    """True if pip finds a distribution for a requirement, as it is configured. Raises ToolFailed if it cannot ask."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "1", *arguments, requirement]
    try:
        run_tool(f"asking pip for {requirement}", command)
    except ToolFailed as error:
        if any(words in error.said for words in _UNREACHABLE):
            what = f"asking pip for {requirement}"
            raise ToolFailed(what, f"{error.said}\nan index cannot be reached: the lines above say which") from error
        if any(words in error.said for words in _ABSENT):
            return False
        raise
    return True


def already_there(project: Project, where: str) -> Finding:
    """The refusal of a version that a place has already."""
    message = f"{project.name} {project.version} is there already"
    return Finding("published", where, message, "raise the version in pyproject.toml: what was published never changes")


def unresolved_core(project: Project, where: str, arguments: Sequence[str] = ()) -> list[Finding]:
    """The refusal of a requirement of rlm-env that pip cannot meet: nobody could install the package."""
    needed = [text for text in project.metadata.get("dependencies", []) if text.replace("_", "-").startswith("rlm-env")]
    return [
        Finding(
            "core-requirement",
            where,
            f"pip finds no {text}, so nobody could install the package",
            "publish rlm-env there first, or mend the bounds",
        )
        for text in needed
        if not pip_finds(text, arguments)
    ]
