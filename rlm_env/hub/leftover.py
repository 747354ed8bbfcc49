"""Prose and tests that `rlm-env new` wrote and that nobody has changed, in a package that asks something else by now.

As long as the question is the template's, so may be what is said about it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

from rlm_env.hub.findings import Finding
from rlm_env.origin import content_files

RULE = "template"
ABOUT_ITS_TASK = {
    "README.md": ("- **Short description**", "- **Source links**", "| `lines` |"),
    "pyproject.toml": ("description = ",),
    "environment.py": ('"""How many pieces', "- `lines`:"),
    "tips.txt": ("- Lines come", "- Sort the lines"),
    "test_environment.py": ("COUNTED = ", "def recounted("),
}
"""A file in `template/` -> how those of its lines begin that are true of the template's own task alone."""
PROSE = (".md", ".py", ".rst", ".toml", ".txt")


def template_prose(package: Path, project: Path | None) -> list[Finding]:
    """A finding for each file with lines of the template that are still there though the template's question is gone.

    `package`: the folder of the package, or the file of a module. `project`: the folder of its pyproject.toml; None
    where only an installation is there.
    """
    if _asks_as_template(path for path in content_files(package).values() if path.suffix == ".py"):
        return []
    lines = _template_lines()
    found: list[Finding] = []
    for name, path in _prose_files(package, project).items():
        written = path.read_text("utf-8", "replace").splitlines()
        if numbers := [number for number, line in enumerate(written, 1) if line.strip() in lines]:
            where = f"{name}, line{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
            message = (
                f"left from rlm-env new, whose question is no longer asked: {_shortened(written[numbers[0] - 1])!r}"
            )
            found.append(Finding(RULE, where, message, "say what is true of this environment, or delete it"))
    return found


def _template_lines() -> set[str]:
    """The lines of the template that are about its own task, without blanks around them."""
    return {
        line.strip()
        for name, beginnings in ABOUT_ITS_TASK.items()
        for line in _template(name).splitlines()
        if line.strip().startswith(beginnings)
    }


def _template(name: str) -> str:
    return (resources.files("rlm_env.hub") / "template" / f"{name}.template").read_text("utf-8")


def _texts(source: str) -> Iterator[str]:
    """The texts in a Python source; none if it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _asks_as_template(sources: Iterable[Path]) -> bool:
    """True if one of the files holds the template's question."""
    [question] = [
        text for text in _texts(_template("environment.py").replace("@class@", "Template")) if "reached {town}" in text
    ]
    return any(question in _texts(path.read_text("utf-8", "replace")) for path in sources)


def _prose_files(package: Path, project: Path | None) -> dict[str, Path]:
    """The files that a package's author writes, by name: those of the package, and those beside it."""
    content = content_files(package)
    inside = content if package.is_file() else {f"{package.name}/{name}": path for name, path in content.items()}
    beside: dict[str, Path] = {}
    if project is not None:
        paths = [*sorted(project.glob("*")), *sorted(project.glob("tests/*"))]
        beside = {path.relative_to(project).as_posix(): path for path in paths}
    return {name: path for name, path in (beside | inside).items() if path.suffix in PROSE and path.is_file()}


def _shortened(line: str, most: int = 60) -> str:
    text = line.strip()
    return text if len(text) <= most else f"{text[: most - 3]}..."
