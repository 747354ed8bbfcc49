"""Verbatim copy for Recursive Language Models; see README.md."""

from rlm_env.plugins import PLUGINS, lazy_names
from verbatim_copy_rlm.environment import VerbatimCopy

__all__ = ["VerbatimCopy", *PLUGINS]
__getattr__, __dir__ = lazy_names(__name__, PLUGINS)
