"""Questions about code repositories for Recursive Language Models; see README.md."""

from codeqa_rlm.environment import CodeQA
from rlm_env.plugins import PLUGINS, lazy_names

__all__ = ["CodeQA", *PLUGINS]
__getattr__, __dir__ = lazy_names(__name__, PLUGINS)
