"""DeepDive for Recursive Language Models: multi-hop web research; see README.md."""

from deepdive_rlm.environment import DeepDive
from rlm_env.plugins import PLUGINS, lazy_names

__all__ = ["DeepDive", *PLUGINS]
__getattr__, __dir__ = lazy_names(__name__, PLUGINS)
