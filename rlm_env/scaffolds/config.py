"""`RLMConfig`: how a rollout is run, in every scaffold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlm_env.llm.base import Sampling
from rlm_env.repl.config import ReplConfig
from rlm_env.spelling import near_matches


class RLMConfig(BaseModel):
    """How a rollout is run. All scaffolds share these settings, so that they are compared on equal terms.

    Token limits count prompt and completion together. None means unlimited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Sampling = Sampling()
    """How replies of the root LLM are sampled."""
    sub: Sampling = Sampling()
    """How replies of sub-LLMs are sampled."""
    max_turns: int = Field(default=30, ge=1)
    """Replies of the root LLM."""
    max_root_tokens: int | None = Field(default=None, ge=1)
    """Tokens of all requests of the root LLM, prompts and completions together; None: no limit."""
    max_sub_tokens: int | None = Field(default=None, ge=1)
    """The same of all sub-LLMs."""
    max_sub_calls: int | None = Field(default=20_000, ge=0)
    """Prompts that may go to sub-LLMs; None: no limit."""
    max_seconds: float | None = Field(default=1800.0, gt=0)
    """Wall time of the whole rollout, everything included."""
    code_timeout: float = Field(default=120.0, gt=0)
    """Seconds that one cell may compute; waiting for sub-LLMs does not count."""
    max_observation_chars: int = Field(default=8192, ge=200)
    """Characters of a cell's output that the root LLM sees: head and tail, with the true length between them."""
    prompt: str = "rlm"
    """Name of a shipped system prompt, or the path of a file."""
    action: Literal["auto", "tool", "fence"] = "auto"
    """How the root LLM is asked for code: by a tool call, in fenced blocks, or (`auto`) by a tool call where the engine
    supports them. Both are understood in any case."""
    tips: bool = False
    """Put the environment's tips into the system prompt."""
    sub_llms: bool = True
    """Give the REPL `llm_batch`. Without it, the system prompt does not mention sub-LLMs either."""
    aliases: bool = True
    """Give the REPL the names that other RLMs use (`FINAL`, `FINAL_VAR`, `SUBMIT`, `llm_query`, `llm_query_batched`),
    and take `FINAL(...)` in a reply without code as its answer. No prompt mentions them."""
    sub_system_prompt: str | None = None
    """System message of sub-LLMs, for prompts that bring none."""
    tools_for: Literal["sub", "root", "both", "none"] = "sub"
    """Who may call the environment's tools. In scaffolds with one LLM only, it may unless this is "none"."""
    max_tool_turns: int = Field(default=8, ge=1)
    """Replies of one sub-LLM in which it may call tools; then it is asked for its answer."""
    tool_timeout: float = Field(default=60.0, gt=0)
    """Seconds that one tool call may take."""
    max_tool_chars: int = Field(default=8192, ge=200)
    """Characters of one tool result that the model sees."""
    repl: ReplConfig = ReplConfig()
    """The sandbox and its limits: a table, `[rollout.repl]`."""


def config_with(options: Mapping[str, Any]) -> RLMConfig:
    """An `RLMConfig` of some of its fields. Raises TypeError that names an unknown one and what comes near it."""
    for name in options.keys() - RLMConfig.model_fields.keys():
        raise TypeError(f"unknown option '{name}' of the rollout{near_matches(name, RLMConfig.model_fields)}")
    return RLMConfig(**options)
