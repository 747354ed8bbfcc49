"""`RLMConfig`: how a rollout is run, the same for every scaffold."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rlm_env.llm.base import Sampling
from rlm_env.repl.config import ReplConfig


class RLMConfig(BaseModel):
    """How a rollout is run: the same settings for every scaffold, so that scaffolds are compared on equal terms.

    Token limits count prompt and completion together. None means unlimited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Sampling = Sampling()
    sub: Sampling = Sampling()
    max_turns: int = Field(default=30, ge=1)
    max_root_tokens: int | None = Field(default=None, ge=1)
    max_sub_tokens: int | None = Field(default=None, ge=1)
    max_sub_calls: int | None = Field(default=20_000, ge=0)
    max_seconds: float | None = Field(default=1800.0, gt=0)
    """Wall time of the whole rollout, everything included."""
    code_timeout: float = Field(default=120.0, gt=0)
    """Seconds that one cell may compute; waiting for sub-LLMs does not count."""
    max_observation_chars: int = Field(default=8192, ge=200)
    prompt: str = "rlm"
    """Name of a shipped system prompt, or the path of a file."""
    action: Literal["auto", "tool", "fence"] = "auto"
    """How code is asked for: by the tool call, by fenced blocks, or by the tool where the engine supports tools.
    Both are understood in any case."""
    tips: bool = False
    """Whether the environment's tips stand in the system prompt."""
    sub_llms: bool = True
    """Whether the REPL has `llm_batch`. Without, neither the REPL nor the system prompt knows of it."""
    sub_system_prompt: str | None = None
    tools_for: Literal["sub", "root", "both", "none"] = "sub"
    """Who may call the environment's tools, where it has any. Where there is only one LLM, it is that one, or none."""
    max_tool_turns: int = Field(default=8, ge=1)
    """Replies of one sub-LLM in which it may call tools; then it is asked for its answer."""
    tool_timeout: float = Field(default=60.0, gt=0)
    """Seconds for one call of a tool."""
    max_tool_chars: int = Field(default=8192, ge=200)
    """Of one result of a tool."""
    repl: ReplConfig = ReplConfig()
