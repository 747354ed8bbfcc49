"""How tiny-rlm drives the loop: the settings in its folder's `rlm_env.json`. Its lessons are recorded with them too."""

from __future__ import annotations

from typing import Any

import rlm_env
from rlm_env.scaffolds.rlm import RLMEnv
from tiny_rlm.lessons import Lessons
from tiny_rlm.tokenizer import TOOL_RENDERER

WINDOW = 2048
PROFILE = {
    "prompt": "tiny",
    "action": "fence",
    "max_turns": 6,
    "max_observation_chars": 400,
    "root": {"temperature": 1.0, "max_tokens": 256},
    "sub": {"temperature": 0.0, "max_tokens": 112},
    "max_tool_turns": 7,
    "max_tool_chars": 1500,
    "code_timeout": 10.0,
    "renderer": TOOL_RENDERER,
}
"""`renderer` belongs to the engine, the rest to the loop."""

SCAFFOLDS: dict[str, dict[str, Any]] = {"rlm": {}, "rlm-tips": {"tips": True}, "rlm-nosub": {"sub_llms": False}}
"""The scaffolds with a REPL, as options of `make_environment`."""


def make_environment(lessons: Lessons, seed: int, **more: Any) -> RLMEnv:
    """The lessons' environment under that profile. `more`: options that are added or replaced."""
    loop = {name: value for name, value in PROFILE.items() if name != "renderer"}
    return rlm_env.load_environment(lessons.environment, **{**loop, **lessons.options, "seed": seed, **more})
