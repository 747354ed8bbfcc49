"""The Environments Hub of Prime Intellect: pushed by its own command, `prime env push --runtime v1`.

`prime` (tested: 0.18.0) is used as a command and not as a library: what it requires may exclude what is installed here.
"""

from __future__ import annotations

import os
import re
import shutil

from rlm_env.hub.build import Built
from rlm_env.hub.findings import Finding
from rlm_env.hub.places.base import Place, already_there, unresolved_core
from rlm_env.hub.project import Project
from rlm_env.hub.tools import ToolFailed, fresh_environ, run_tool
from rlm_env.runs.errors import ConfigError

COMMAND = "prime"
RUNTIME = "v1"
"""Declared, since a package without a hard requirement of verifiers would be listed as Unclassified."""


class EnvironmentsHub(Place):
    """The hub, by the login of the command `prime` (`prime login`, or `PRIME_API_KEY`).

    `owner`: a user or team (None: whose login it is); `private`: not listed for others.
    """

    name = "hub"

    def __init__(self, owner: str | None = None, *, private: bool = False) -> None:
        self._owner, self._private = owner, private

    def refusals(self, project: Project) -> list[Finding]:
        if shutil.which(COMMAND) is None:
            raise ConfigError(
                f"--to hub needs the command {COMMAND}: install it in an environment of its own, for example by "
                f"uv tool install {COMMAND} or pipx install {COMMAND}"
            )
        there = project.version in self._versions(f"{self._owner or _login()}/{project.name}")
        return [already_there(project, "the hub")] * there + unresolved_core(project, "the hub")

    def upload(self, staged: Project, built: Built) -> list[str]:
        command = [COMMAND, "env", "push", "--path", str(staged.folder), "--runtime", RUNTIME]
        command += ["--visibility", "PRIVATE" if self._private else "PUBLIC"]
        command += [] if self._owner is None else ["--owner", self._owner]
        said = run_tool("prime env push", command, environ=_environ())
        pushed = re.search(r"Successfully pushed (\S+)", said)
        if pushed is None:
            raise ToolFailed("prime env push", said)
        return [f"to install it elsewhere: prime env install {pushed[1]}@{staged.version}"]

    def _versions(self, environment: str) -> set[str]:
        """The versions that the hub has; none for an environment that it does not have."""
        try:
            said = run_tool(
                "prime env version list", [COMMAND, "env", "version", "list", environment], environ=_environ()
            )
        except ToolFailed as error:
            if "404" in error.said:
                return set()
            raise
        return set(re.findall(r"^\W*(\d\S*)", said, re.MULTILINE))


def _login() -> str:
    """The user whose login `prime` has. Raises ConfigError for that of a team, whose slug it does not tell, and
    ToolFailed without a login."""
    said = run_tool("prime whoami", [COMMAND, "whoami"], environ=_environ())
    user = re.search(r"Username\W+([\w-]+)", said)
    if user is None or "Not set" in said or re.search(r"Type\W+Team", said):
        raise ConfigError(
            "--to hub: prime does not tell under which name it would push: name the user or team by --owner"
        )
    return user[1]


def _environ() -> dict[str, str]:
    """Wide lines and no colors, so that what the command says can be read."""
    return {**fresh_environ(), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "PATH": os.environ.get("PATH", "")}
