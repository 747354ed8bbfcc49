"""Finding environments by name: installed packages first, then the folder `environments/` of a checkout.

An environment package names its `Environment` class (or a function that returns one) as an entry point of the
group `rlm_env.environments`:

    [project.entry-points."rlm_env.environments"]
    oolong-rlm = "oolong_rlm:Oolong"

In names, `_` and `-` mean the same.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from rlm_env.environment import Environment
from rlm_env.scaffolds.config import RLMConfig, config_with
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.spelling import near_matches
from rlm_env.toml_file import read_toml, table_at

GROUP = "rlm_env.environments"
FOLDER = Path("environments")
FILE_REMEDY = (
    "An environment in a file of its own runs from Python: rlm_env.evaluate_sync(MyEnvironment(), model=...). "
    "Commands want a package: rlm-env new NAME makes one to put it into."
)
"""What is said where the name is that of a Python file."""


class UnknownOption(TypeError):
    """An option that an environment does not have. The message names those that it has."""


def environments() -> dict[str, str]:
    """Name of every environment that can be loaded, and where it comes from."""
    found = {entry.name: f"{FOLDER}/{folder.name}" for entry, folder in _in_folder()}
    return found | {e.name: f"{e.dist.name} {e.dist.version}" if e.dist else e.value for e in _installed()}


def find_environment(name: str, seed: int = 0, **options: Any) -> Environment:
    """The environment of that name, made with its own options, and with `seed` if it has an option of that name.

    Raises ValueError for an unknown name (with near matches), UnknownOption for an unknown option (with near
    matches), TypeError for an entry point that gives no `Environment`.
    """
    make = environment_maker(name)
    if _takes_seed(make):
        options = {"seed": seed, **options}
    _check_names(name, make, options)
    environment = make(**options)
    if not isinstance(environment, Environment):
        raise TypeError(f"the entry point {name!r} gives a {type(environment).__name__}, which is not an Environment")
    return environment


def load_environment(name: str, seed: int = 0, **options: Any) -> RLMEnv:
    """An `RLMEnv` over the environment of that name.

    Options that are fields of `RLMConfig` configure the rollouts, all others go to the environment:
    `load_environment("oolong-rlm", seed=0, lengths=[4096], max_turns=8)`.
    """
    config = {key: options.pop(key) for key in list(options) if key in RLMConfig.model_fields}
    try:
        environment = find_environment(name, seed, **options)
    except (TypeError, ValueError) as error:
        for key in options:
            if hint := near_matches(key, RLMConfig.model_fields, listing=False):
                raise type(error)(f"{error}\n'{key}' is no option of the rollout either{hint}") from error
        raise
    return RLMEnv(environment, config_with(config))


def entry_of(name: str) -> tuple[EntryPoint, Path | None]:
    """The entry point of the environment of that name, and the folder of its project where it is not installed.

    Raises ValueError for an unknown name, with near matches.
    """
    wanted = _normalized(name)
    entry = next((e for e in _installed() if _normalized(e.name) == wanted), None)
    if entry is not None:
        return entry, None
    for entry, folder in _in_folder():
        if _normalized(entry.name) == wanted:
            return entry, folder
    if name.endswith(".py"):
        raise ValueError(f"no environment '{name}'. {FILE_REMEDY}")
    raise ValueError(
        f"no environment '{name}'{near_matches(name, environments())}\n"
        f"Install its package, or run from the folder that holds {FOLDER}/."
    )


def other_places(name: str) -> list[str]:
    """Where else an environment of that name is declared: it is not the one that is found. Raises ValueError for an
    unknown name."""
    entry, folder = entry_of(name)
    found = [e.dist.name if e.dist else e.value for e in _installed() if _normalized(e.name) == _normalized(name)]
    here = [(e, place) for e, place in _in_folder() if _normalized(e.name) == _normalized(name)]
    # sources of what is installed from them declare the same, and are the same
    sources = [str(place) for e, place in here if folder is not None or e.value != entry.value]
    return [*found, *sources][1:] if folder is None else sources[1:]


def environment_maker(name: str) -> Callable[..., Environment]:
    """The class or function that an entry point names; a folder of a checkout is put on `sys.path` first.

    Raises ValueError for an unknown name, and what importing the module raises.
    """
    entry, folder = entry_of(name)
    if folder is not None and str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))
        importlib.invalidate_caches()
    return entry.load()


def takes_option(name: str, option: str) -> bool:
    """True if the environment of that name has an option of that name. Raises what `find_environment` raises."""
    return option in inspect.signature(environment_maker(name)).parameters


def check_options(name: str, options: Iterable[str]) -> None:
    """Raises UnknownOption for options that the environment of that name does not have, and for `seed`, which is given
    apart; ValueError for an unknown name. Makes nothing."""
    if "seed" in options:
        raise UnknownOption(f"environment {name}: the seed is no option; it is given beside the options, as `seed`")
    make = environment_maker(name)
    _check_names(name, make, options, of_datasets=_dataset_options(make))


def _dataset_options(make: Callable[..., Any]) -> list[str]:
    """The options of all data sets of an environment, which the module of its class lists as `DATASETS`."""
    return list({field.name: None for options in datasets_of(make).values() for field in dataclasses.fields(options)})


def datasets_of(make: Callable[..., Any]) -> dict[str, Any]:
    """The data sets of an environment's class; {} for one that has no such list."""
    found = getattr(sys.modules.get(make.__module__), "DATASETS", {})
    return dict(found) if isinstance(found, dict) and all(map(dataclasses.is_dataclass, found.values())) else {}


def _check_names(
    name: str, make: Callable[..., Any], options: Iterable[str], *, of_datasets: Sequence[str] = ()
) -> None:
    """Raises UnknownOption for an option that an environment does not have, with a near one and all that it has. One
    that takes any option, and whose data sets are not given, refuses wrong ones itself."""
    parameters = inspect.signature(make).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters) and not of_datasets:
        return
    known = [*of_datasets]
    known += [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for option in options:
        if option not in known:
            hint = near_matches(option, known, listing=False) or "."
            raise UnknownOption(
                f"environment {name} has no option '{option}'{hint} Its options: {', '.join(known) or 'none'}."
            )


def _takes_seed(make: Callable[..., Any]) -> bool:
    """Whether an environment has an option `seed`."""
    parameters = inspect.signature(make).parameters.values()
    return any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters)


def _normalized(name: str) -> str:
    """A name as it is compared: `-` for `_`."""
    return name.replace("_", "-")


def _installed() -> list[EntryPoint]:
    """The entry points of installed packages."""
    return list(entry_points(group=GROUP))


def _in_folder() -> list[tuple[EntryPoint, Path]]:
    """The entry points of the projects in the folder, each with its project. Warns of a project that cannot be read."""
    found: list[tuple[EntryPoint, Path]] = []
    for project in sorted(FOLDER.glob("*/pyproject.toml")):
        try:
            declared = table_at(read_toml(project), "project", "entry-points", GROUP)
        except (ValueError, OSError) as error:  # of one package, which keeps no other from being loaded
            warnings.warn(f"an environment package is left out: {error}", RuntimeWarning, stacklevel=4)
            continue
        named = [(name, value) for name, value in declared.items() if isinstance(value, str)]
        found += [(EntryPoint(name, value, GROUP), project.parent) for name, value in named]
    return found
