"""Python functions that models may call: their schema, and running the calls on the host."""

from rlm_env.tools.box import ToolBox, ToolCall
from rlm_env.tools.schema import Tool

__all__ = ["Tool", "ToolBox", "ToolCall"]
