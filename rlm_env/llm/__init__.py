"""Engines that answer prompts. `import rlm_env.llm` needs the core dependencies only: classes that need a tokenizer or
an engine (`TokenPolicy`, `VLLMServer`) are imported on first use."""

from typing import TYPE_CHECKING

from rlm_env.lazy_names import lazy_names

if TYPE_CHECKING:
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
    from rlm_env.llm.openai_chat import OpenAIChat
    from rlm_env.llm.token_policy import TokenPolicy
    from rlm_env.llm.vllm.install import VLLMStartError
    from rlm_env.llm.vllm.server import VLLMServer
    from rlm_env.messages import AssistantMessage, Completion

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LLM": "rlm_env.llm.base",
        "AssistantMessage": "rlm_env.messages",
        "Completion": "rlm_env.messages",
        "ContextOverflow": "rlm_env.llm.base",
        "EngineRefused": "rlm_env.llm.base",
        "EngineUnavailable": "rlm_env.llm.base",
        "LLMError": "rlm_env.llm.base",
        "OpenAIChat": "rlm_env.llm.openai_chat",
        "Request": "rlm_env.llm.base",
        "Sampling": "rlm_env.llm.base",
        "TokenPolicy": "rlm_env.llm.token_policy",
        "ToolsRefused": "rlm_env.llm.base",
        "VLLMServer": "rlm_env.llm.vllm.server",
        "VLLMStartError": "rlm_env.llm.vllm.install",
    },
)
