"""Settings in which the scaffolds of a run differ, in words for the report.

Only settings of the same name are compared, not what makes a scaffold (a REPL, sub-LLMs, tips).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPARED = (
    "root",
    "sub",
    "max_turns",
    "max_root_tokens",
    "max_sub_tokens",
    "max_sub_calls",
    "max_seconds",
    "code_timeout",
    "max_observation_chars",
    "tools_for",
    "max_tool_turns",
    "tool_timeout",
    "max_tool_chars",
)
"""Fields of `RLMConfig` that limit what a scaffold may use."""


def setting_differences(scaffolds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence per setting that is not equal in all scaffolds that have it.

    `scaffolds`: `Scaffold.describe()` by name; it leaves out settings without effect in that scaffold.
    """
    found: list[str] = []
    for key in COMPARED:
        values = {
            scaffold: description["config"][key]
            for scaffold, description in scaffolds.items()
            if key in description["config"]
        }
        if len({repr(value) for value in values.values()}) > 1:
            listing = ", ".join(f"{scaffold} {_short(value)}" for scaffold, value in values.items())
            found.append(f"{key} is not equal in all scaffolds: {listing}.")
    return found


def _short(value: Any) -> str:
    """A setting's value in few words."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_short(item)}" for key, item in value.items()) + ")"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
