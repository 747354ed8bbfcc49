"""Questions about code repositories for Recursive Language Models; see README.md."""

from codeqa_rlm.environment import CodeQA

__all__ = ["CodeQA"]
