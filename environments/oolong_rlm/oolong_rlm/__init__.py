"""Oolong for Recursive Language Models; see README.md."""

from oolong_rlm.environment import Oolong, OolongPairs
from rlm_env.plugins import PLUGINS, lazy_names

__all__ = ["Oolong", "OolongPairs", *PLUGINS]
__getattr__, __dir__ = lazy_names(__name__, PLUGINS)
