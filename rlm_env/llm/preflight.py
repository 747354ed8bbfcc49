"""The first question to an endpoint, and why it was not answered: which option is wrong, and what would be right."""

from __future__ import annotations

import difflib
from typing import Any

from rlm_env.llm.base import LLM, EngineRefused, EngineUnavailable, LLMError, Sampling, ToolSchema, ToolsRefused
from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.llm.refusals import engine_refused, refused_field
from rlm_env.messages import Usage

NAMES_SHOWN = 8
SMALL_TOOL: ToolSchema = {
    "type": "function",
    "function": {
        "name": "python_repl",
        "description": "Runs Python code.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
SMALL_LIMIT = 256
"""Limit of output tokens. Models that reason refuse smaller ones."""


async def ask_small_question(llm: LLM, sampling: Sampling) -> Usage:
    """Asks a question that costs little, with a tool where tools are supported, and returns what it cost."""
    sampling = sampling.model_copy(update={"max_tokens": min(SMALL_LIMIT, sampling.max_tokens)})
    question = [{"role": "user", "content": "Reply with the word ready."}]
    try:
        return (await llm.complete(question, [SMALL_TOOL] if llm.supports_tools else None, sampling)).usage
    except ToolsRefused:
        return (await llm.complete(question, None, sampling)).usage


async def explained(error: LLMError, endpoint: Endpoint, model: str) -> LLMError:
    """The error to raise in place of `error`, which names the option to correct where one is at fault."""
    if isinstance(error, EngineRefused):
        return error
    if isinstance(error, EngineUnavailable):
        return EngineUnavailable(f"{error} (base_url: check the address, and that the server runs)")
    if "is not JSON" in str(error):
        return await _wrong_address(error, endpoint, model)
    if not isinstance(error, EndpointError):
        return error
    field = refused_field(error)
    if field in ("model", "base_url"):
        return await _wrong_address(error, endpoint, model)
    if field is not None:
        return engine_refused(error)
    return EngineRefused(str(error)) if error.status in (400, 403, 422) else error


async def _wrong_address(error: LLMError, endpoint: Endpoint, model: str) -> LLMError:
    """Tells a wrong model from a wrong base URL by the endpoint's list of models."""
    names = await _models(endpoint)
    if names is None:
        if not endpoint.base_url.endswith("/v1") and await _models(endpoint, "/v1") is not None:
            return EngineRefused(f"{error} (base_url: write {endpoint.public_url}/v1)", "base_url")
        if isinstance(error, EndpointError) and refused_field(error) == "model":
            return engine_refused(error)
        remedy = "check it" if endpoint.base_url.endswith("/v1") else "check it; most endpoints want it to end in /v1"
        return EngineRefused(f"{error} (base_url: there is no chat at {endpoint.public_url}; {remedy})", "base_url")
    if model in names:
        return EngineRefused(f"{error} (model: {model} is in the endpoint's list, but takes no chat)", "model")
    near = difflib.get_close_matches(model, names, NAMES_SHOWN, 0.5) or sorted(names)[:NAMES_SHOWN]
    return EngineRefused(f"{error} (model: there is no {model!r} here; there is {', '.join(near)})", "model")


async def _models(endpoint: Endpoint, suffix: str = "") -> list[str] | None:
    """Names of the models, or None if the endpoint has no list of them."""
    other = endpoint.beside(endpoint.base_url + suffix)
    try:
        cards: Any = (await other.get("/models"))["data"]
        return [str(card["id"]) for card in cards] or None
    except (LLMError, LookupError, TypeError):
        return None
    finally:
        await other.aclose()
