"""The sources of prime-rl from a checkout, importable here although it is not installed.

prime-rl asks for Python 3.12, CUDA and packages that no index has. Its orchestrator, environment server and loss need
none of them at run time; modules that they only name are replaced by stand-ins.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest.mock import MagicMock

COMMIT = "559b44772e471d1538537b8805cc77f3824a5e64"
"""The tested one, of 21 August 2026. As deps/verifiers it pins a60a606e."""
PACKAGES = ("aiolimiter", "beartype", "jaxtyping")
"""What it needs beside our extras."""
HOW = f"""This needs a checkout of prime-rl at the tested commit:

    git clone https://github.com/PrimeIntellect-ai/prime-rl && git -C prime-rl checkout {COMMIT}
    pip install {" ".join(PACKAGES)}
    PRIME_RL_SRC=$PWD/prime-rl python scripts/prime_rl_cpu.py"""
STAND_INS = (
    "dion",
    "fla",
    "flash_attn",
    "modelexpress",
    "mooncake",
    "prime_cli",
    "prime_evals",
    "pynvml",
    "ring_flash_attn",
    "spmd_types",
    "tilelang",
    "torchao",
    "torchdata",
    "torchtitan",
    "wandb_gql",
    "wandb_graphql",
    "wandb_workspaces",
)
"""Packages that modules on the way import and this way never uses."""


class _StandIn(MagicMock):
    """A module of which everything can be imported, called, subclassed and used as a decorator. It computes nothing."""

    __path__: ClassVar[list[str]] = []
    __all__: ClassVar[list[str]] = []


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        missing = name.split(".")[0] in STAND_INS
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if missing else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        module = _StandIn(name=spec.name)
        module.__name__, module.__spec__ = spec.name, spec
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def source_folder() -> Path:
    """The checkout that PRIME_RL_SRC names. Ends the program, saying what to do, where there is none."""
    named = os.environ.get("PRIME_RL_SRC", "")
    folder = Path(named).resolve()
    if not named or not (folder / "src" / "prime_rl").is_dir():
        sys.exit(f"PRIME_RL_SRC={named!r} is no checkout of prime-rl. {HOW}" if named else HOW)
    return folder


def require_packages() -> None:
    """Ends the program, saying what to do, where what prime-rl needs beside our extras is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"prime-rl needs {', '.join(missing)} here: pip install {' '.join(missing)}")


def use_checkout() -> Path:
    """Makes `import prime_rl` give the sources of the checkout; returns its folder. Where its submodule deps/verifiers
    is there, `import verifiers` gives that."""
    folder = source_folder()
    parts = [folder / "src", folder / "packages" / "prime-rl-configs" / "src"]
    pinned = folder / "deps" / "verifiers"
    sys.path[:0] = [str(path) for path in (*parts, *([pinned] if (pinned / "verifiers").is_dir() else []))]
    sys.meta_path.append(_Finder())
    import prime_rl

    prime_rl.__path__ = [str(part / "prime_rl") for part in parts]
    import prime_rl.utils

    prime_rl.utils.__path__ = [str(part / "prime_rl" / "utils") for part in parts]
    return folder
