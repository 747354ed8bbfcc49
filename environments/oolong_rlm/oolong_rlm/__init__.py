"""Oolong for Recursive Language Models; see README.md."""

from oolong_rlm.environment import Oolong, OolongPairs

__all__ = ["Oolong", "OolongPairs"]
