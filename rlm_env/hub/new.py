"""Makes the package of a new environment: a working one, which passes all checks, to be changed into one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from importlib import resources
from pathlib import Path

from rlm_env import __version__
from rlm_env.runs.errors import ConfigError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_NAME = 100
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    "init.py": "@module@/__init__.py",
    "environment.py": "@module@/environment.py",
    "tips.txt": "@module@/tips.txt",
    "test_environment.py": "tests/test_environment.py",
}
"""A file in `template/` -> where it goes."""


def make_package(name: str, parent: Path) -> Path:
    """Writes the package of an environment of that name into a new folder below `parent`; returns the folder.

    Raises ConfigError for a name that cannot be one, if the folder is there already, and if it cannot be made.
    """
    if not NAME.fullmatch(name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f"; for example {near}" if NAME.fullmatch(near) else ""
        raise ConfigError(f"'{name}' cannot be a name: lower-case letters, digits and hyphens between them{hint}")
    module = name.replace("-", "_")
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"'{name[:40]}...' cannot be a name: it has more than {LONGEST_NAME} characters")
    folder = parent / module
    if folder.exists():
        raise ConfigError(f"{folder} is there already; choose another name, or another folder with --out")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        other = f"{name.removesuffix('-rlm')}-{'2-' if name.endswith('-rlm') else ''}rlm"
        raise ConfigError(f"'{name}' cannot be a name: Python imports something else as {module}; {other} may do")
    words = {"@name@": name, "@module@": module, "@class@": class_name(name), "@bounds@": core_bounds(__version__)}
    template = resources.files("rlm_env.hub") / "template"
    try:
        for source, target in FILES.items():
            path = folder / _filled(target, words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled((template / f"{source}.template").read_text("utf-8"), words), "utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error}; name another folder with --out") from error
    return folder


def class_name(name: str) -> str:
    """`word-count-rlm` -> `WordCount`: without an ending that every environment could have."""
    words = name.split("-")
    return "".join(word.capitalize() for word in (words[:-1] if len(words) > 1 and words[-1] == "rlm" else words))


def core_bounds(core: str) -> str:
    """The versions of rlm-env that a package made with this one can run with: `0.2.1` -> `>=0.2,<0.3`, since before
    1.0 any minor version may break something."""
    major, minor = (int(part) for part in core.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text
