"""Engines that answer prompts. `import rlm_env.llm` needs the core dependencies only: classes that need a tokenizer or
an engine (`TokenPolicy`, `VLLMServer`) are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_env.llm.base import (
    LLM,
    ContextOverflow,
    EngineRefused,
    EngineUnavailable,
    LLMError,
    Request,
    Sampling,
    ToolsRefused,
)
from rlm_env.messages import AssistantMessage, Completion

if TYPE_CHECKING:
    from rlm_env.llm.openai_chat import OpenAIChat
    from rlm_env.llm.token_policy import TokenPolicy
    from rlm_env.llm.vllm.install import VLLMStartError
    from rlm_env.llm.vllm.server import VLLMServer

_LAZY = {
    "OpenAIChat": "rlm_env.llm.openai_chat",
    "TokenPolicy": "rlm_env.llm.token_policy",
    "VLLMServer": "rlm_env.llm.vllm.server",
    "VLLMStartError": "rlm_env.llm.vllm.install",
}

__all__ = [
    "LLM",
    "AssistantMessage",
    "Completion",
    "ContextOverflow",
    "EngineRefused",
    "EngineUnavailable",
    "LLMError",
    "OpenAIChat",
    "Request",
    "Sampling",
    "TokenPolicy",
    "ToolsRefused",
    "VLLMServer",
    "VLLMStartError",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
