"""A package index: uploaded by twine, which takes user and token from its own configuration (`TWINE_*`, .pypirc)."""

from __future__ import annotations

import sys

from rlm_env.hub.build import Built
from rlm_env.hub.findings import Finding
from rlm_env.hub.places.base import Place, already_there, pip_finds, unresolved_core
from rlm_env.hub.project import Project
from rlm_env.hub.tools import require_modules, run_tool


class PackageIndex(Place):
    """An index that pip and twine know.

    `repository`: where twine uploads, a URL or a name of .pypirc (None: twine's default). `index_url`: where pip looks
    (None: as pip is configured).
    """

    name = "index"

    def __init__(self, repository: str | None = None, index_url: str | None = None) -> None:
        self._repository, self._index_url = repository, index_url

    def refusals(self, project: Project) -> list[Finding]:
        require_modules("twine")
        where = self._index_url or "the index"
        here = [] if self._index_url is None else ["--index-url", self._index_url]
        also = [] if self._index_url is None else ["--extra-index-url", self._index_url]
        there = pip_finds(f"{project.name}=={project.version}", here)
        return [already_there(project, where)] * there + unresolved_core(project, where, also)

    def upload(self, staged: Project, built: Built) -> list[str]:
        command = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"]
        if self._repository is not None:
            command += ["--repository-url" if "://" in self._repository else "--repository", self._repository]
        run_tool("twine upload", [*command, str(built.wheel), str(built.archive)])
        option = "" if self._index_url is None else f" --extra-index-url {self._index_url}"
        return [f"to install it elsewhere: pip install{option} {staged.name}=={staged.version}"]
