"""The source of an installed package: its location, and those of its modules that this machine can import.

Finding a package imports nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import platform
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

SKIPPED_FOLDERS = {"__pycache__", "test", "tests", "idle_test"}


@dataclass(frozen=True, eq=False)
class Source:
    package: str
    files: dict[str, str]
    """Path, beginning with the package's name, -> text."""
    trees: dict[str, ast.Module]
    """The same files, parsed."""

    @cached_property
    def sha256(self) -> str:
        """First 16 hex digits over all paths and texts: what the items about this package depend on."""
        text = "\0".join(f"{path}\0{text}" for path, text in sorted(self.files.items()))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def described(self) -> dict[str, str]:
        """The record of the source in a task's info."""
        return {"package": self.package, "python": platform.python_version(), "sha256": self.sha256}


def locate(package: str) -> Path:
    """The file of a module, or the folder of a package. Raises ValueError if there is no Python source of it."""
    if not package.isidentifier():
        raise ValueError(f"packages: {package!r} must be the name of a top-level package, for example json")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ValueError(f"packages: {package!r} is not installed")
    if not spec.origin or not spec.origin.endswith(".py"):
        raise ValueError(f"packages: {package!r} is not written in Python, or has no __init__.py")
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


@cache
def read_source(package: str) -> Source:
    """All files of a package but its tests, in the order of their paths. Raises ValueError as `locate` does."""
    place = locate(package)
    paths = {f"{package}.py": place}
    if place.is_dir():
        found = [p for p in place.rglob("*.py") if not SKIPPED_FOLDERS & set(p.relative_to(place).parts)]
        paths = {f"{package}/{path.relative_to(place).as_posix()}": path for path in found}
    files = {name: paths[name].read_text("utf-8") for name in sorted(paths)}
    return Source(package, files, {name: ast.parse(text) for name, text in files.items()})


def module_name(path: str) -> str:
    """`json/decoder.py` -> `json.decoder`, `json/__init__.py` -> `json`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def importable(tree: ast.Module) -> bool:
    """True if nothing at the top of a module shows that it is made for another system: an import of a missing module,
    or a raise under a condition."""
    for node in tree.body:
        if isinstance(node, ast.If) and any(isinstance(inner, ast.Raise) for inner in node.body):
            return False
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            try:
                if importlib.util.find_spec(name.partition(".")[0]) is None:
                    return False
            except (ImportError, ValueError):
                return False
    return True
