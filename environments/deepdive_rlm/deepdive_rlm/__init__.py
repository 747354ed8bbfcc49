"""DeepDive for Recursive Language Models: multi-hop web research; see README.md."""

from deepdive_rlm.environment import DeepDive

__all__ = ["DeepDive"]
