"""The classes by which a package is a plugin of `verifiers`, exported on demand. Importing this imports nothing.

A package of environments ends with

    __all__ = ["MyEnvironment", *PLUGINS]
    __getattr__, __dir__ = lazy_names(__name__, PLUGINS)

and its name is then the id of a taskset, a harness and an environment of verifiers.
"""

from __future__ import annotations

from importlib.util import find_spec

from rlm_env.lazy_names import lazy_names

__all__ = ["PLUGINS", "lazy_names"]

PLUGINS: dict[str, str] = {
    "RLMHarness": "rlm_env.adapters.verifiers.harness",
    "RLMSeatsEnv": "rlm_env.adapters.verifiers.seats",
    "RLMTaskset": "rlm_env.adapters.verifiers.taskset",
}
"""Name -> the module that defines it; empty where verifiers is not installed."""
if find_spec("verifiers") is None:
    PLUGINS.clear()
