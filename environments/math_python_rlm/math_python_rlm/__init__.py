"""Mathematics for Recursive Language Models; see README.md."""

from math_python_rlm.environment import MathPython
from rlm_env.plugins import PLUGINS, lazy_names

__all__ = ["MathPython", *PLUGINS]
__getattr__, __dir__ = lazy_names(__name__, PLUGINS)
