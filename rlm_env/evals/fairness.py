"""Do the scaffolds of a run have the same chances? What differs in their settings, in words for the report.

Covered: settings that the scaffolds share by name. Not covered: what scaffolds are made of (a REPL, sub-LLMs, tips).
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
"""Fields of `RLMConfig` that decide what a scaffold may use."""


def setting_differences(scaffolds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence per setting that is not equal in all scaffolds that have it.

    `scaffolds`: what `Scaffold.describe` returned, by name. A setting that has no effect in a scaffold is not in its description.
    """
    found: list[str] = []
    for key in COMPARED:
        values = {
            scaffold: description["config"][key]
            for scaffold, description in scaffolds.items()
            if key in description["config"]
        }
        if len({repr(value) for value in values.values()}) > 1:
            told = ", ".join(f"{scaffold} {_short(value)}" for scaffold, value in values.items())
            found.append(f"{key} is not equal in all scaffolds: {told}.")
    return found


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_short(item)}" for key, item in value.items()) + ")"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
