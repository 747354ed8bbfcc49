"""Rules about a package's pyproject.toml, README and license: what an index, a hub and its users need."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from rlm_env import __version__
from rlm_env.hub.findings import Finding
from rlm_env.hub.guarded import environment_code, raised
from rlm_env.hub.new import core_bounds
from rlm_env.hub.project import PYPROJECT, Project, maker_in_project

CORE = "rlm-env"
HEADINGS = ("Overview", "Task", "Quickstart", "Environment Arguments", "Metrics")
"""Sections of a README in the hub's shape."""
OVERVIEW = ("Environment ID", "Short description", "Tags")
TAGGING_BACKENDS = ("hatchling.build",)
"""`tags` in [project] is the hub's own; setuptools, for one, refuses to build with it."""
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def metadata_findings(project: Project) -> list[Finding]:
    """Findings about [project]: version, description, license, tags, Python, how it is built."""
    metadata = project.metadata
    found: list[Finding] = []

    def add(rule: str, message: str, remedy: str) -> None:
        found.append(Finding(rule, PYPROJECT, message, remedy))

    try:
        if Version(project.version).local:
            add("version", f"an index refuses the local version {project.version}", "leave out what follows the +")
    except InvalidVersion:
        add("version", f"version {project.version!r} is no version", 'write it out, for example version = "0.1.0"')
    if not metadata.get("description"):
        add("description", "there is no description", "say in one sentence what the environment asks")
    spdx = 'name it by its SPDX identifier, for example license = "Apache-2.0"'
    if not isinstance(metadata.get("license"), str):
        add("license", "there is no license", spdx)
    else:
        try:
            canonicalize_license_expression(metadata["license"])
        except InvalidLicenseExpression as error:
            add("license", " ".join(str(error).split()), spdx)
    licenses = [path for path in project.folder.iterdir() if re.fullmatch(r"(LICEN[CS]E|COPYING)(\..*)?", path.name)]
    if not any(path.is_file() and path.read_bytes().strip() for path in licenses):
        message = "the LICENSE beside it holds no text" if licenses else "there is no LICENSE file beside it"
        add("license", message, "add the license's text as LICENSE")
    if not metadata.get("tags"):
        add("tags", "there are no tags", 'add tags to [project], for example tags = ["rlm", "long-context"]')
    elif project.backend not in TAGGING_BACKENDS:
        add("tags", f"{project.backend or 'setuptools'} refuses tags in [project]", "build with hatchling.build")
    if not metadata.get("requires-python"):
        add("python", "requires-python is missing", 'add requires-python = ">=3.11"')
    else:
        try:
            SpecifierSet(metadata["requires-python"])
        except InvalidSpecifier:
            message = f"requires-python {metadata['requires-python']!r} is no bound on versions"
            add("python", message, 'write requires-python = ">=3.11"')
    return found


def requirement_findings(project: Project) -> list[Finding]:
    """Findings about requirements: rlm-env in bounds that admit this one, none by URL."""
    found: list[Finding] = []
    core: Requirement | None = None
    unread = False
    for text in project.metadata.get("dependencies", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            message = f"{text!r}: {' '.join(str(error).split())}"
            found.append(Finding("requirements", PYPROJECT, message, "write NAME>=LOWER,<UPPER"))
            unread = unread or text.startswith(CORE)
            continue
        if requirement.url:
            remedy = "name a version of a published package: an index refuses URLs"
            found.append(Finding("requirements", PYPROJECT, f"{text!r} is required by URL", remedy))
        if requirement.name.lower().replace("_", "-") == CORE:
            core = requirement
    bounds = f'"{CORE}{core_bounds(__version__)}"'
    if unread:
        return found
    if core is None:
        found.append(Finding("core-requirement", PYPROJECT, f"{CORE} is not required", f"add {bounds} to dependencies"))
        return found
    if core.marker is not None:
        message = f"{core} is not required everywhere"
        found.append(Finding("core-requirement", PYPROJECT, message, f"require {bounds} without a marker"))
    operators = {spec.operator for spec in core.specifier}
    if not (operators & {">=", "==", "~=", ">"} and operators & {"<", "<=", "==", "~="}):
        message = f"{core} has no lower and upper bound, so it would run with versions that it was never tried with"
        found.append(Finding("core-requirement", PYPROJECT, message, f"require {bounds}"))
    elif not core.specifier.contains(__version__, prereleases=True):
        message = f"{core} does not admit {CORE} {__version__}, with which it is checked here"
        found.append(
            Finding("core-requirement", PYPROJECT, message, f"require {bounds}, or check it with that version")
        )
    return found


def readme_findings(project: Project) -> list[Finding]:
    """Findings about the README: the hub's sections, and options that are those of the environments."""
    named = project.metadata.get("readme", "README.md")
    readme = project.folder / str(named.get("file", "README.md") if isinstance(named, dict) else named)
    if not readme.is_file():
        return [Finding("readme", readme.name, "it is missing", "write one in the hub's shape; see rlm-env new")]
    try:
        text = readme.read_text("utf-8")
    except UnicodeDecodeError as error:
        return [Finding("readme", readme.name, f"it is not UTF-8: {error}", "save it as UTF-8")]
    sections = dict(re.findall(r"^#{2,3} (.+?)\s*\n(.*?)(?=^#{1,3} |\Z)", text, re.MULTILINE | re.DOTALL))
    found = [
        Finding("readme", readme.name, f"the section '{heading}' is missing", f"add ### {heading}")
        for heading in HEADINGS
        if heading not in sections
    ]
    found += [
        Finding("readme", readme.name, f"'{part}' is missing in the Overview", f"add - **{part}**: ...")
        for part in OVERVIEW
        if f"**{part}**" not in sections.get("Overview", "")
    ]
    listed = set(ROW.findall(sections.get("Environment Arguments", "")))
    known: set[str] = set()
    closed = True
    for name in project.environments:
        if f"`{name}`" not in text:
            found.append(Finding("readme", readme.name, f"`{name}` is not named", "name each environment in backticks"))
        try:
            with environment_code("loads", name):
                options, open_ended = _options(maker_in_project(project, name))
        except Exception as error:
            message = f"{name} cannot be imported: {raised(error)}"
            return [*found, Finding("loads", PYPROJECT, message, "mend its entry point, or install what it needs")]
        known |= options
        closed = closed and not open_ended
    wrong = sorted(known - listed) + (sorted(listed - known) if closed else [])
    if wrong:
        message = f"the table of Environment Arguments and the options differ in {', '.join(wrong)}"
        found.append(Finding("readme", readme.name, message, "list each option in a row that begins | `option` |"))
    return found


def _options(make: Callable[..., Any]) -> tuple[set[str], bool]:
    """The names of an environment's options, and whether it takes others too."""
    parameters = inspect.signature(make).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)
