"""Rules about files: what a REPL can really read of an environment's package, and of what the package needs.

A REPL of the kind in which rollouts run tries to open every file of the package and to import it; none may work. Other
installed packages can be read in a REPL, so those that the environment requires, directly or not, are searched for gold
answers.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from rlm_env.hub.announced import whole_words
from rlm_env.hub.findings import Finding
from rlm_env.hub.project import canonical_name, read_project
from rlm_env.origin import Origin, content_files
from rlm_env.repl import ReplConfig, ReplPool

LEAST_CHARS = 4
"""Gold answers shorter than this occur in many files by chance and are not searched for."""
LEAST_SHARE = 0.5
"""A file that holds at least this share of the gold answers holds them on purpose."""
LEAST_FOUND = 3
SEARCHED_BYTES = 20_000_000
"""Larger files are not searched."""
CORE = "rlm-env"
TRY = """
import importlib, json
readable, importable = [], []
for path in json.loads({paths!r}):
    try:
        with open(path, "rb") as file:
            file.read(1)
        readable.append(path)
    except OSError:
        pass
for name in json.loads({modules!r}):
    try:
        importlib.import_module(name)
        importable.append(name)
    except BaseException:
        pass
answer["content"] = json.dumps([readable, importable])
"""


async def reachable_files(origin: Origin, golds: Iterable[str]) -> tuple[list[Finding], str]:
    """A finding for each file of the package that a REPL can read, each module of it that it can import, and each
    readable file of a required package that holds gold answers; and what was tried.

    Raises ReplError where no REPL can be started.
    """
    own = package_files(origin)
    others = required_files(origin)
    modules = sorted({path.stem for path in own if path.suffix == ".py" and path.parent == origin.folder.parent})
    modules = sorted({origin.module, *modules, *_top_levels(origin)})
    readable, importable, level = await try_in_repl([*own, *others], modules)
    remedy = (
        "install the package by its entry point, or move its folder out of site-packages: a REPL is kept out of what "
        "an environment's distribution installs, and out of sources elsewhere"
    )
    found = [Finding("package-in-repl", name, "can be imported in the REPL", remedy) for name in importable]
    searched = {gold for gold in golds if len(gold) >= LEAST_CHARS}

    def told(path: Path) -> str:
        held = golds_in(path, searched)
        such = f" and holds {len(held)} of {len(searched)} gold answers, such as {min(held)[:40]!r}" if held else ""
        return f"can be read in the REPL{such}"

    found += [Finding("package-in-repl", _shown(path, origin), told(path), remedy) for path in own if path in readable]
    elsewhere = "move the data into the environment's own package"
    found += [
        Finding("gold-in-files", str(path), told(path), elsewhere)
        for path in others
        if path in readable and golds_in(path, searched)
    ]
    return found, f"at level {level} a REPL reads none of {len(own)} files; {len(others)} of required packages searched"


async def try_in_repl(paths: Sequence[Path], modules: Sequence[str]) -> tuple[set[Path], list[str], str]:
    """(the files that code in a REPL can open, the modules that it can import, the isolation level)"""
    code = TRY.format(paths=json.dumps([str(path) for path in paths]), modules=json.dumps(list(modules)))
    async with ReplPool(ReplConfig(preload=())) as pool, pool.open(context="") as repl:
        step = await repl.run(code, timeout=60.0)
        if step.error is not None:
            raise RuntimeError(f"the code that tries to read files failed: {step.error}")
        readable, importable = json.loads(step.answer["content"])
        level = pool.report.level if pool.report is not None else "unknown"
    return {Path(path) for path in readable}, importable, level


def package_files(origin: Origin) -> list[Path]:
    """The files of the package as it lies there, those of its distribution and its project included."""
    found = set(content_files(origin.folder).values())
    found |= {path for path in _distribution_files(origin.package) if origin.project is None}
    if origin.project is not None:
        found |= {path for path in content_files(origin.project).values() if path.suffix != ".md"}
    return sorted({path.resolve() for path in found})


def required_files(origin: Origin) -> list[Path]:
    """Text files of the packages that the environment requires, without those of rlm-env and what that requires."""
    needed = _needed(_requirements(origin)) - _needed([CORE]) - {CORE}
    found = {path.resolve() for name in needed for path in _distribution_files(name)}
    return sorted(path for path in found if path.is_file() and path.stat().st_size <= SEARCHED_BYTES)


def golds_in(path: Path, golds: set[str]) -> set[str]:
    """The gold answers that stand in a file, if they are so many that it is no chance."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(SEARCHED_BYTES)
    except (OSError, EOFError):
        return set()
    return golds_in_text(data.decode("utf-8", "replace"), golds)


def golds_in_text(text: str, golds: set[str]) -> set[str]:
    """The gold answers that stand in a text, if they are so many that it is no chance. Short ones are left out."""
    golds = {gold for gold in golds if len(gold) >= LEAST_CHARS}
    held = {gold for gold in golds if gold in text and any(whole_words(gold, text))}
    return held if len(held) >= max(LEAST_FOUND, LEAST_SHARE * len(golds)) else set()


def _requirements(origin: Origin) -> list[str]:
    """What the package requires: by its pyproject.toml where it is imported from its sources."""
    if origin.project is not None:
        return read_project(origin.project).metadata.get("dependencies", [])
    return _required(origin.package)


def _needed(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that are required, directly or by one another, without those of extras."""
    needed: set[str] = set()
    left = list(requirements)
    while left:
        name = re.match(r"[\w.-]+", text := left.pop())
        if name is None or "extra ==" in text or canonical_name(name[0]) in needed:
            continue
        needed.add(canonical_name(name[0]))
        left += _required(name[0])
    return needed


def _required(package: str) -> list[str]:
    try:
        return distribution(package).requires or []
    except PackageNotFoundError:
        return []


def _distribution_files(package: str) -> list[Path]:
    try:
        found: Distribution = distribution(package)
    except PackageNotFoundError:
        return []
    return [
        path for file in found.files or () if file.suffix != ".pyc" and (path := Path(str(file.locate()))).is_file()
    ]


def _top_levels(origin: Origin) -> set[str]:
    """Names of modules that the distribution installs."""
    if origin.project is not None:
        return set()
    try:
        files = distribution(origin.package).files or ()
    except PackageNotFoundError:
        return set()
    tops = {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py" and ".." not in file.parts}
    return {top for top in tops if top.isidentifier() and top not in sys.stdlib_module_names}


def _shown(path: Path, origin: Origin) -> str:
    for base in (origin.folder.parent, origin.project):
        if base is not None and path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return str(path)
