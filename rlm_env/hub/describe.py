"""What `rlm-env envs NAME` shows: where an environment comes from, its options with types and defaults, its splits."""

from __future__ import annotations

import dataclasses
import inspect
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

from rlm_env.environment import Environment
from rlm_env.hub.guarded import NoEnd, environment_code
from rlm_env.origin import Origin, origin_of
from rlm_env.registry import datasets_of, environment_maker, find_environment
from rlm_env.runs.errors import ConfigError
from rlm_env.task import Split

MOST_TASKS = 1000
MOST_SECONDS = 1.0
"""A split is counted up to so many tasks, for so long."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of an environment."""

    name: str
    kind: str
    default: str
    datasets: tuple[str, ...] = ()
    """The data sets that it belongs to; none for one that the environment always has."""


@dataclass(frozen=True, slots=True)
class EnvironmentPage:
    """What is known of an environment without running it."""

    name: str
    origin: Origin
    about: str
    """The first paragraph of its docstring."""
    options: list[Option]
    splits: dict[str, str]
    """Split -> how many tasks it has with the default options, in words."""
    tools: list[str]

    def lines(self) -> list[str]:
        """The page as text."""
        origin = self.origin
        place = origin.project or origin.folder
        said = [self.name, f"  {self.about}", ""]
        said.append(f"  package   {origin.package} {origin.version}, from {place}")
        note = f" (changed: published as {str(origin.published_sha256)[:12]})" if origin.changed else ""
        said.append(f"  content   {origin.sha256}{note}")
        said += [f"  {split:<8}  {count}" for split, count in self.splits.items()]
        said.append(f"  tools     {', '.join(self.tools) or 'none'}")
        said += ["", "  options (--set options.NAME=VALUE)"]
        widths = [max((len(getattr(one, part)) for one in self.options), default=0) for part in ("name", "kind")]
        for one in self.options:
            of = f"  (dataset {', '.join(one.datasets)})" if one.datasets else ""
            said.append(f"    {one.name:<{widths[0]}}  {one.kind:<{widths[1]}}  {one.default}{of}")
        return said


def describe_environment(name: str) -> EnvironmentPage:
    """The page of the environment of that name. Raises ConfigError if it is not known or cannot be made."""
    try:
        with environment_code("loads", name):
            origin, make = origin_of(name), environment_maker(name)
            environment = find_environment(name)
    except Exception as error:
        raise ConfigError(f"environment {name}: {error}") from error
    about = inspect.getdoc(make) or inspect.getdoc(type(environment)) or ""
    return EnvironmentPage(
        name,
        origin,
        " ".join(about.split("\n\n")[0].split()),
        list_options(make),
        {split: _count(environment, split) for split in get_args(Split)},
        _tools(environment),
    )


def list_options(make: Callable[..., Any]) -> list[Option]:
    """The options of an environment's class or function: its keyword arguments, and those of its data sets.

    A package with several data sets lists them as `DATASETS` in the module of its class: name -> dataclass of options.
    """
    parameters = inspect.signature(make).parameters.values()
    found = [
        Option(parameter.name, _kind(parameter.annotation), _default(parameter.default))
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        having: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for dataset, options in datasets_of(make).items():
            for field in dataclasses.fields(options):
                having[field.name, _kind(field.type), _default(_field_default(field))].append(dataset)
        found += [Option(*option, datasets=tuple(names)) for option, names in having.items()]
    return found


def _kind(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "any"
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return re.sub(r"Literal\[(.*?)\]", r"\1", re.sub(r"\b(?:typing|collections\.abc|pathlib)\.", "", text))


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty or value is dataclasses.MISSING:
        return "(needed)"
    return repr(value)


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _count(environment: Environment, split: Split) -> str:
    begin, count = time.monotonic(), 0
    try:
        with environment_code("tasks", split):
            for _ in islice(environment.tasks(split), MOST_TASKS):
                count += 1
                if time.monotonic() - begin > MOST_SECONDS:
                    return f"at least {count:,} tasks"
    except NoEnd as stuck:
        return f"cannot be made: {stuck}"
    except Exception as error:
        return f"cannot be made: {type(error).__name__}: {error}"
    return f"{count:,} tasks" if count < MOST_TASKS else f"{MOST_TASKS:,} tasks or more"


def _tools(environment: Environment) -> list[str]:
    """The tools for the first task. Making them may need what is not there, such as a key."""
    try:
        with environment_code("tools", "eval"):
            task = next(iter(environment.tasks("eval")))
            return [getattr(tool, "name", getattr(tool, "__name__", "?")) for tool in environment.tools(task)]
    except (Exception, NoEnd) as error:
        return [f"cannot be made: {error}"]
