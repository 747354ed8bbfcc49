"""Finding environments by name: installed packages first, then the folder `environments/` of a checkout.

An environment package names its `Environment` class (or a function that returns one) as an entry point of the
group `rlm_env.environments`:

    [project.entry-points."rlm_env.environments"]
    oolong-rlm = "oolong_rlm:Oolong"
"""

from __future__ import annotations

import difflib
import importlib
import sys
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from rlm_env.environment import Environment
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv

GROUP = "rlm_env.environments"
FOLDER = Path("environments")


def environments() -> dict[str, str]:
    """Name of every environment that can be loaded, with where it comes from."""
    found = {name: f"{FOLDER}/{folder.name}" for name, (_, folder) in _in_folder().items()}
    return found | {e.name: f"{e.dist.name} {e.dist.version}" if e.dist else e.value for e in _installed()}


def find_environment(name: str, seed: int = 0, **options: Any) -> Environment:
    """The environment of that name, made with `seed` and its own options.

    Raises ValueError for an unknown name (with near matches), TypeError for an unknown option.
    """
    name = name.replace("_", "-")
    entry = next((e for e in _installed() if e.name == name), None)
    if entry is None:
        local = _in_folder()
        if name not in local:
            known = environments()
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"no environment {name!r}{f'; did you mean {near[0]!r}?' if near else ''} "
                f"Known: {', '.join(sorted(known)) or 'none'}. Install its package, or run from the folder that "
                f"holds {FOLDER}/."
            )
        entry, folder = local[name]
        if str(folder.resolve()) not in sys.path:
            sys.path.insert(0, str(folder.resolve()))
            importlib.invalidate_caches()
    return entry.load()(seed=seed, **options)


def load_environment(name: str, seed: int = 0, **options: Any) -> RLMEnv:
    """An `RLMEnv` over the environment of that name.

    Options that are fields of `RLMConfig` configure the rollouts, all others go to the environment:
    `load_environment("oolong-rlm", seed=0, lengths=[4096], max_turns=8)`.
    """
    config = {key: options.pop(key) for key in list(options) if key in RLMConfig.model_fields}
    return RLMEnv(find_environment(name, seed, **options), RLMConfig(**config))


def _installed() -> list[EntryPoint]:
    return list(entry_points(group=GROUP))


def _in_folder() -> dict[str, tuple[EntryPoint, Path]]:
    found: dict[str, tuple[EntryPoint, Path]] = {}
    for project in sorted(FOLDER.glob("*/pyproject.toml")):
        declared = tomllib.loads(project.read_text("utf-8")).get("project", {}).get("entry-points", {}).get(GROUP, {})
        for name, value in declared.items():
            found[name] = (EntryPoint(name, value, GROUP), project.parent)
    return found
