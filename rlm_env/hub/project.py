"""The project of an environment package: finding it, what its pyproject.toml says, a clean copy to build from."""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from rlm_env.origin import HASH_FILE, content_hash, origin_of
from rlm_env.registry import FOLDER, GROUP, environments
from rlm_env.runs.errors import ConfigError
from rlm_env.spelling import near_matches
from rlm_env.toml_file import read_toml, table_at

PYPROJECT = "pyproject.toml"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
ENTRY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
LEFT_OUT = ("__pycache__", "*.egg-info", "*.pyc", ".*")
"""What is not copied: made by tools, or hidden."""
LEFT_OUT_OF_PROJECT = ("build", "dist", "outputs")
"""What is not copied either, where it lies beside pyproject.toml: a package may have folders of these names."""


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


def environment_names(name: str) -> list[str]:
    """The environments that are meant by the name of one, or by the name or the folder of a package. What is both the
    name of an environment and a folder here means the environment; `./NAME` means the folder.

    Raises ConfigError if there is none, or if those in that folder cannot be loaded by name.
    """
    known = environments()
    if name.replace("_", "-") in {one.replace("_", "-") for one in known}:
        return [name]
    project = find_project(name)
    if missing := sorted(set(project.environments) - set(known)):
        raise ConfigError(
            f"{', '.join(missing)} cannot be loaded by name: pip install -e {project.folder}, or run from the folder "
            f"that holds {FOLDER}/"
        )
    return list(project.environments)


def _project_folder(name: str) -> Path:
    if (Path(name) / PYPROJECT).is_file():
        return Path(name)
    projects = {one.name: one.folder for one in _projects_here()}
    normal = {canonical_name(known): folder for known, folder in projects.items()}
    if canonical_name(name) in normal:
        return normal[canonical_name(name)]
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


def canonical_name(name: str) -> str:
    """The name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _projects_here() -> Iterator[Project]:
    """The projects in `environments/` whose pyproject.toml can be read."""
    for path in sorted(FOLDER.glob(f"*/{PYPROJECT}")):
        with contextlib.suppress(ConfigError):
            yield read_project(path.parent)


def read_project(folder: Path) -> Project:
    """The project in a folder. Raises ConfigError if its pyproject.toml names no package, or a key of it that is read
    here holds something else than it should."""
    values = read_toml(folder / PYPROJECT, ConfigError)
    metadata = values.get("project", {})
    wrong = _wrong_keys(metadata) if isinstance(metadata, dict) else "project: a table is expected"
    if wrong:
        raise ConfigError(f"{folder / PYPROJECT}, {wrong}")
    backend = table_at(values, "build-system").get("build-backend", "")
    return Project(folder, metadata, table_at(values, "tool"), backend)


def _wrong_keys(metadata: dict[str, Any]) -> str | None:
    """The first key of [project] that is not of its type, with what is expected; None if all are."""
    if not metadata.get("name"):
        return "[project]: there is no name"
    for key in ("name", "version", "description", "requires-python"):
        if not isinstance(metadata.get(key, ""), str):
            return f"project.{key}: text in quotes is expected, got {metadata[key]!r}"
    if not NAME.fullmatch(metadata["name"]):
        return f"project.name: letters, digits, - _ . are expected, got {metadata['name']!r}"
    for key in ("dependencies", "tags"):
        values = metadata.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return f"project.{key}: a list of texts is expected, got {values!r}"
    points = metadata.get("entry-points", {})
    named = points.get(GROUP, {}) if isinstance(points, dict) else None
    if not isinstance(named, dict):
        return f'[project.entry-points."{GROUP}"]: a table of NAME = "package:Class" is expected'
    for name, value in named.items():
        if not isinstance(value, str) or not ENTRY.fullmatch(value) or not NAME.fullmatch(name):
            return f'project.entry-points."{GROUP}": NAME = "package:Class" is expected, got {name!r} = {value!r}'
    return None


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
        patterns = (*LEFT_OUT, *(LEFT_OUT_OF_PROJECT if Path(folder) == project.folder else ()))
        return links | shutil.ignore_patterns(*patterns)(folder, names)

    shutil.copytree(project.folder, target, ignore=ignored)
    staged = read_project(target)
    sha256 = content_hash(staged.content_folder)
    (staged.content_folder / HASH_FILE).write_text(f"{sha256}\n", "ascii")
    return staged, sha256
