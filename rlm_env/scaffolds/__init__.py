"""The scaffolds: ways of answering the same tasks, under one interface and one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlm_env.environment import Environment
from rlm_env.repl import ReplPools
from rlm_env.scaffolds.base import Scaffold
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.scaffolds.standard import StandardScaffold
from rlm_env.scaffolds.summary import SummaryScaffold
from rlm_env.scaffolds.variants import NoSubScaffold, TipsScaffold

__all__ = ["SCAFFOLDS", "RLMConfig", "RLMEnv", "Scaffold", "config_type", "make_scaffold"]

SCAFFOLDS: dict[str, type[Scaffold]] = {
    scaffold.name: scaffold for scaffold in (StandardScaffold, RLMEnv, TipsScaffold, NoSubScaffold, SummaryScaffold)
}
"""Name -> class of every scaffold, as `--scaffolds` takes them."""


def config_type(name: str) -> type[RLMConfig]:
    """The configuration class of a scaffold: `RLMConfig`, or a subclass with further fields."""
    return SCAFFOLDS[name].Config


def make_scaffold(
    name: str,
    environment: Environment,
    options: Mapping[str, Any] | None = None,
    *,
    pools: ReplPools | None = None,
) -> Scaffold:
    """The scaffold of that name, with `options` instead of the defaults of its configuration.

    `pools`: where it gets its pool of REPLs, if it uses one; None: it starts and closes its own.
    Raises ValueError on an unknown scaffold, and pydantic's ValidationError (a ValueError) on an unknown option.
    """
    if name not in SCAFFOLDS:
        raise ValueError(f"unknown scaffold {name!r}; known scaffolds: {', '.join(SCAFFOLDS)}")
    return SCAFFOLDS[name](environment, config_type(name)(**(options or {})), pools=pools)
