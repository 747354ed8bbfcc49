"""Do the arms of a run have the same chances? What differs in their settings, in words for the report.

Covered: settings that the arms share by name. Not covered: what arms are made of (a REPL, sub-LLMs, tips).
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
"""Fields of `RLMConfig` that decide what an arm may use."""


def setting_differences(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence per setting that is not equal in all arms that have it.

    `arms`: what `Arm.describe` returned, by name. A setting that has no effect in an arm is not in its description.
    """
    found: list[str] = []
    for key in COMPARED:
        values = {arm: description["config"][key] for arm, description in arms.items() if key in description["config"]}
        if len({repr(value) for value in values.values()}) > 1:
            told = ", ".join(f"{arm} {_short(value)}" for arm, value in values.items())
            found.append(f"{key} is not equal in all arms: {told}.")
    return found


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_short(item)}" for key, item in value.items()) + ")"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
