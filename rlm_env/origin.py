"""Where an environment comes from: its package, the package's version and folder, and the hash of its content.

The hash covers the files of the package that is imported (code, tips, data), so it is the same for a checkout, an
editable install and an installed wheel, and differs as soon as one byte does. A package that `rlm-env publish` built
holds the hash that it was published with in a file of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

from rlm_env.registry import entry_of
from rlm_env.toml_file import read_toml, table_at

HASH_FILE = "content.sha256"
"""The file in a published package that holds its content hash."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an environment comes from."""

    package: str
    """The distribution's name, for example `needle-rlm`."""
    version: str
    module: str
    """The package that is imported, for example `needle_rlm`."""
    folder: Path
    """The folder of the package; the file itself for a module that is a single file."""
    project: Path | None
    """The folder of its pyproject.toml, where it is imported from its sources."""
    sha256: str
    """Hash of the content as it is now."""
    published_sha256: str | None
    """Hash of the content as it was published; None for one that `rlm-env publish` did not build."""

    @property
    def changed(self) -> bool:
        """True if it was published and has been changed since."""
        return self.published_sha256 not in (None, self.sha256)


def origin_of(name: str) -> Origin:
    """The origin of the environment of that name. Raises ValueError for an unknown name, and ImportError if the
    package that should hold it is not there."""
    entry, project = entry_of(name)
    module = entry.value.partition(":")[0].partition(".")[0]
    folder = _module_place(module, project)
    sources = project if project is not None else _sources(folder, entry)
    if sources is not None:
        metadata = table_at(read_toml(sources / "pyproject.toml"), "project")
        package, version = metadata.get("name", module), metadata.get("version", "0")
    else:
        assert entry.dist is not None, "an entry point that was found in no folder belongs to a distribution"
        package, version = entry.dist.name, entry.dist.version
    written = folder / HASH_FILE
    published = written.read_text("ascii").strip() if written.is_file() else None
    return Origin(package, version, module, folder, sources, content_hash(folder), published)


def content_files(place: Path) -> dict[str, Path]:
    """The files of a package by relative path with "/", sorted: all but caches, hidden files and the hash itself. A
    single file is a package of one."""
    if place.is_file():
        return {place.name: place}
    found = {path.relative_to(place): path for path in place.rglob("*") if path.is_file()}
    return {
        relative.as_posix(): path
        for relative, path in sorted(found.items())
        if relative.name != HASH_FILE and path.suffix != ".pyc" and not any(_ignored(part) for part in relative.parts)
    }


def content_hash(place: Path) -> str:
    """SHA-256 over the names and bytes of `content_files`."""
    digest = hashlib.sha256()
    for name, path in content_files(place).items():
        data = path.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
        digest.update(data)
    return digest.hexdigest()


def _ignored(part: str) -> bool:
    return part == "__pycache__" or part.startswith(".")


def _module_place(module: str, project: Path | None) -> Path:
    """The folder of a package, or the file of a module, without importing it."""
    if project is not None:
        for place in (project / module, project / f"{module}.py"):
            if place.exists():
                return place.resolve()
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ImportError(f"the package {module}, named by an entry point, is not installed", name=module)
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(str(spec.origin)).resolve()


def _sources(folder: Path, entry: EntryPoint) -> Path | None:
    """The project around an editable install: the metadata of such an install may be older than the sources."""
    project = folder.parent / "pyproject.toml"
    if entry.dist is None or not project.is_file():
        return None
    named = table_at(read_toml(project), "project").get("name", "")
    return folder.parent if named.replace("_", "-") == entry.dist.name.replace("_", "-") else None
