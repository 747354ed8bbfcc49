"""Lessons of deepdive-rlm: what the root LLM asks for, and how a sub-LLM finds it in the web."""
