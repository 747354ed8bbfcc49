"""The project of an environment package: finding it, what its pyproject.toml says, a clean copy to build from."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from rlm_env.origin import HASH_FILE, content_hash, origin_of
from rlm_env.registry import FOLDER, GROUP
from rlm_env.runs.errors import ConfigError
from rlm_env.spelling import near_matches
from rlm_env.toml_file import read_toml, table_at

PYPROJECT = "pyproject.toml"
LEFT_OUT = ("__pycache__", "build", "dist", "outputs", "*.egg-info", "*.pyc", ".*")
"""What is not copied: made by tools, or hidden."""


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with the pyproject.toml of an environment package."""

    folder: Path
    metadata: dict[str, Any]
    """The table `[project]`."""
    tool: dict[str, Any]
    """The table `[tool]`."""
    backend: str

    @property
    def name(self) -> str:
        return self.metadata["name"]

    @property
    def version(self) -> str:
        return self.metadata.get("version", "")

    @property
    def environments(self) -> dict[str, str]:
        """Name of each environment -> its entry point."""
        return self.metadata.get("entry-points", {}).get(GROUP, {})

    @property
    def module(self) -> str:
        """The package that is imported."""
        return next(iter(self.environments.values())).partition(":")[0].partition(".")[0]

    @property
    def content_folder(self) -> Path:
        return self.folder / self.module


def find_project(name: str) -> Project:
    """The project of an environment or a package of that name, or in that folder.

    Raises ConfigError if there is none, only an installed one without its sources, or one without an environment.
    """
    project = read_project(_project_folder(name))
    where = project.folder / PYPROJECT
    if not project.environments:
        raise ConfigError(f'{where} names no environment: add [project.entry-points."{GROUP}"]')
    if not (project.content_folder / "__init__.py").is_file():
        raise ConfigError(
            f"{where} names the package {project.module}: make {project.content_folder} one, with __init__.py"
        )
    return project


def _project_folder(name: str) -> Path:
    if (Path(name) / PYPROJECT).is_file():
        return Path(name)
    projects: dict[str, Path] = {}
    for path in sorted(FOLDER.glob(f"*/{PYPROJECT}")):
        with contextlib.suppress(ConfigError):  # what is wrong with another package is no concern of this one
            projects[read_project(path.parent).name] = path.parent
    if name.replace("_", "-") in projects:
        return projects[name.replace("_", "-")]
    try:
        origin = origin_of(name)
    except (ValueError, ImportError) as error:
        hint = near_matches(name, projects, listing=False)
        raise ConfigError(f"{error}{hint} A folder with a {PYPROJECT} can be named too.") from error
    if origin.project is None:
        raise ConfigError(
            f"{name} comes from the installed package {origin.package} {origin.version}, without its sources; give the "
            f"folder with its {PYPROJECT}"
        )
    return origin.project


def read_project(folder: Path) -> Project:
    """The project in a folder. Raises ConfigError if its pyproject.toml names no package."""
    values = read_toml(folder / PYPROJECT, ConfigError)
    metadata = table_at(values, "project")
    if not metadata.get("name"):
        raise ConfigError(f"{folder / PYPROJECT} has no name in [project]")
    backend = table_at(values, "build-system").get("build-backend", "")
    return Project(folder, metadata, table_at(values, "tool"), backend)


def maker_in_project(project: Project, name: str) -> Callable[..., Any]:
    """What the entry point of that environment names, imported from the project's folder. Raises what that raises."""
    folder = str(project.folder.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
    return EntryPoint(name, project.environments[name], GROUP).load()


def stage_project(project: Project, target: Path) -> tuple[Project, str]:
    """A clean copy of the project in the new folder `target`, with its content hash in it; and the hash.

    What tools have made, hidden files and symbolic links are left out, so that a hidden file with a key never leaves.
    """

    def ignored(folder: str, names: list[str]) -> set[str]:
        links = {name for name in names if (Path(folder) / name).is_symlink()}
        return links | shutil.ignore_patterns(*LEFT_OUT)(folder, names)

    shutil.copytree(project.folder, target, ignore=ignored)
    staged = read_project(target)
    sha256 = content_hash(staged.content_folder)
    (staged.content_folder / HASH_FILE).write_text(f"{sha256}\n", "ascii")
    return staged, sha256
