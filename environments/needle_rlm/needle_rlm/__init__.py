"""S-NIAH for Recursive Language Models; see README.md."""

from needle_rlm.environment import Needle
from rlm_env.plugins import PLUGINS, lazy_names

__all__ = ["Needle", *PLUGINS]
__getattr__, __dir__ = lazy_names(__name__, PLUGINS)
