"""What an endpoint refuses is left out or sent otherwise, remembered, and told."""

# ruff: noqa: E501  the words of providers stand in one piece

from __future__ import annotations

from typing import Any

import pytest

from rlm_env.llm import LLMError, Sampling, ToolsRefused
from rlm_env.llm.output_cap import output_cap
from tests.llm.replies import HELLO, call, client, refusal, said
from tests.stub_endpoint import stub_endpoint

TOOL = {"type": "function", "function": {"name": "python_repl", "parameters": {}}}


async def test_values_that_equal_the_default_are_not_sent() -> None:
    async with stub_endpoint(lambda *_: said("x")) as stub, client(stub) as llm:
        await llm.complete(HELLO, None, Sampling())
        await llm.complete(HELLO, None, Sampling(temperature=0.5, top_p=0.9))
        assert llm.adaptations == []
    assert [(b.get("temperature"), b.get("top_p")) for b in stub.bodies] == [(None, None), (0.5, 0.9)]


@pytest.mark.parametrize(
    "mark",
    [
        {"prompt_logprobs": None},
        {"timings": {}},
        {"system_fingerprint": "fp_ollama"},
        {"system_fingerprint": "b6123-ab"},
    ],
)
async def test_servers_with_defaults_of_their_own_are_sent_every_value(mark) -> None:
    """vLLM takes defaults from the model's generation config: what was sampled so is asked for again."""
    async with stub_endpoint(lambda *_: said("x") | mark) as stub, client(stub) as llm:
        await llm.complete(HELLO, None, Sampling())
        await llm.complete(HELLO, None, Sampling())
    assert [(b.get("temperature"), b.get("top_p")) for b in stub.bodies] == [(None, None), (1, 1), (1, 1)]


REFUSED = [
    ("top_p", "Unsupported parameter: 'top_p' is not supported with this model.", {"param": "top_p"}),
    ("top_p", "`temperature` and `top_p` cannot both be specified for this model. Please use only one.", {}),
    ("temperature", "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1)", {}),
    ("temperature", "invalid temperature: only 1 is allowed for this model", {}),
    ("temperature", "`temperature` is deprecated for this model.", {}),
    ("temperature", "temperature: Extra inputs are not permitted", {}),
    ("stop", "Unsupported parameter: 'stop' is not supported with this model.", {"param": "stop"}),
    ("stop", "Argument not supported on this model: stop", {}),
    ("seed", "Unrecognized request argument supplied: seed", {}),
    ("seed", "property 'seed' is unsupported", {}),
    ("seed", 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', {}),
    ("n", "Invalid value for 'n': only 1 is supported", {"param": "n"}),
    ("logprobs", "logprobs is not supported with this model", {}),
    ("min_p", "Unknown parameter: 'min_p'.", {"code": "unknown_parameter"}),
    ("parallel_tool_calls", "parallel_tool_calls is not supported", {}),
    ("presence_penalty", "Unsupported parameter(s): `presencePenalty`", {}),
    ("presence_penalty", "Unknown name \"presencePenalty\" at 'generation_config': Cannot find field.", {}),
    ("presence_penalty", "This value is not supported", {"param": "presencePenalty"}),
    ("parallel_tool_calls", "parallelToolCalls is not supported", {"param": "parameters.parallelToolCalls"}),
    ("min_p", "minP: Extra inputs are not permitted", {}),
    ("tool_choice", "'tool_choice' is not supported by this model, tools are", {"param": "tool_choice"}),
]


@pytest.mark.parametrize(("name", "words", "error"), REFUSED)
@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_parameter_is_left_out_and_told(name, words, error, status) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return refusal(words, status, **error) if name in body else said("fine")

    extra = {
        "n": 1,
        "logprobs": True,
        "min_p": 0.1,
        "presence_penalty": 0.1,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
    }
    sampling = Sampling(temperature=0.5, top_p=0.9, stop=("END",), seed=3, extra=extra)
    async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
        for _ in range(2):
            assert (await llm.complete(HELLO, [TOOL], sampling)).text == "fine"
        assert [sentence.partition(" ")[0] for sentence in llm.adaptations] == [name]
        assert (await llm.describe())["adaptations"] == llm.adaptations
    first, second, third = [body for body in stub.bodies if body]
    assert first.keys() - second.keys() == {name}  # and nothing else
    assert third == second  # learned once


async def test_pydantic_s_words_for_a_field_that_is_too_much() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
        return (422, {"detail": detail}) if "seed" in body else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        assert (await llm.complete(HELLO, None, Sampling(seed=1))).text == "fine"


async def test_two_refusals_one_after_the_other() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        for name in ("top_p", "temperature", "max_tokens"):
            if name in body:
                return refusal(
                    f"Unsupported parameter: '{name}' is not supported. Use 'max_completion_tokens'", param=name
                )
        return said("fine")

    async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
        assert (await llm.complete(HELLO, None, Sampling(temperature=0.2, top_p=0.3))).text == "fine"
        assert len(llm.adaptations) == 3


@pytest.mark.parametrize(
    "words", ["temperature must be between 0 and 2", "temperature: must be <= 1.0", "temperature must be at most 2"]
)
async def test_a_value_out_of_range_is_the_user_s_mistake(words) -> None:
    async with stub_endpoint(lambda *_: refusal(words, param="temperature")) as stub, client(stub) as llm:
        with pytest.raises(LLMError, match="temperature"):
            await llm.complete(HELLO, None, Sampling(temperature=3.0))
        assert llm.adaptations == []


async def test_temperature_zero_where_it_must_be_positive() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return refusal("`temperature` must be strictly positive") if body["temperature"] <= 0 else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        for _ in range(2):
            await llm.complete(HELLO, None, Sampling(temperature=0.0))
        assert "0.01" in llm.adaptations[0]
    assert [body["temperature"] for body in stub.bodies] == [0, 0.01, 0.01]


CAPS = [
    (
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
        16384,
    ),
    ("max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-3-7-20250219", 64000),
    ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
    ("Range of max_tokens should be [1, 8192]", 8192),
    (
        "`max_tokens` must be less than or equal to `32768`, the maximum value for `max_tokens` is less than the `context_window`",
        32768,
    ),
    (
        "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value that is lower than 4096.",
        4096,
    ),
    (
        "Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is from 1 (inclusive) to 65537 (exclusive).",
        65536,
    ),
    ("max_tokens (100000) is too large. Maximum is 16,384.", 16384),
    ("max_tokens must be less than 2048", 2047),
    ("max_completion_tokens cannot exceed 8192", 8192),
    (
        "too many tokens: max tokens must be less than or equal to 4096, the maximum output for this model - received 100000",
        4096,
    ),
    ("Invalid max_tokens: must be in [0, 16384]", 16384),
    ("max_tokens must be at least 1", None),
    ("max_tokens is wrong", None),
    ("temperature must be at most 2", None),
]


@pytest.mark.parametrize(("words", "cap"), CAPS)
def test_the_cap_that_a_refusal_names(words, cap) -> None:
    assert output_cap(words, 100_000) == cap


async def test_the_cap_is_taken_and_kept() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return said("x") if body["max_tokens"] <= 8192 else refusal(CAPS[2][0])

    async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
        for limit in (100_000, 100_000, 50):
            await llm.complete(HELLO, None, Sampling(max_tokens=limit))
        assert "8,192" in llm.adaptations[0]
    assert [body["max_tokens"] for body in stub.bodies] == [100_000, 8192, 8192, 50]


async def test_a_cap_without_a_number_is_never_guessed() -> None:
    async with stub_endpoint(lambda *_: refusal("max_tokens is too large")) as stub, client(stub, retries=0) as llm:
        with pytest.raises(LLMError, match="too large"):
            await llm.complete(HELLO)
    assert {body.get("max_tokens") for body in stub.bodies} == {4096}


@pytest.mark.parametrize("refused", ["max_tokens", "max_completion_tokens", "both"])
async def test_the_name_of_the_limit(refused) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        field = next((name for name in ("max_tokens", "max_completion_tokens") if name in body), None)
        if field is None or field != refused != "both":
            return said("x")
        return refusal(f"Unsupported parameter: '{field}' is not supported with this model.", param=field)

    async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
        await llm.complete(HELLO)
        await llm.complete(HELLO)
    assert len(stub.bodies) == {"max_tokens": 3, "max_completion_tokens": 2, "both": 4}[refused]


NO_TOOLS = [
    (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    (400, "registry.ollama.ai/library/gemma3:4b does not support tools"),
    (404, "No endpoints found that support tool use. To learn more about provider routing, visit the docs"),
    (500, "tools param requires --jinja flag"),
    (400, "This model does not support function calling"),
    (400, "Function calling is not enabled for models/gemma-3-27b-it"),
    (400, "`tools` is not supported with this model"),
    (422, "tools: Extra inputs are not permitted"),
    (400, "Tool use is not supported by this model"),
    (400, "tool calling is not supported for this model"),
    (400, "Unrecognized request argument supplied: tools"),
]


@pytest.mark.parametrize(("status", "words"), NO_TOOLS)
async def test_an_endpoint_without_tools(status, words) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return refusal(words, status) if "tools" in body else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        with pytest.raises(ToolsRefused, match="fence"):
            await llm.complete(HELLO, [TOOL])
        assert not llm.supports_tools
        with pytest.raises(ToolsRefused):  # whoever began before that
            await llm.complete(HELLO, [TOOL])
        assert (await llm.complete(HELLO)).text == "fine"
        assert len(llm.adaptations) == 1
    assert len(stub.bodies) == 2


@pytest.mark.parametrize(
    "words",
    [
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'",
        "Invalid tool name: tools must not have names with spaces",
        "The model is not able to serve your request",
    ],
)
async def test_other_refusals_leave_the_tools(words) -> None:
    async with stub_endpoint(lambda *_: refusal(words)) as stub, client(stub) as llm:
        with pytest.raises(LLMError) as caught:
            await llm.complete(HELLO, [TOOL])
        assert not isinstance(caught.value, ToolsRefused)
        assert llm.supports_tools


SYSTEM = [{"role": "system", "content": "Be brief."}, *HELLO]


@pytest.mark.parametrize(
    "words",
    [
        "System role not supported",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    ],
)
async def test_an_endpoint_without_a_system_role(words) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        return refusal(words) if body["messages"][0]["role"] == "system" else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        for _ in range(2):
            assert (await llm.complete(SYSTEM)).text == "fine"
        assert len(llm.adaptations) == 1
    assert [body["messages"][0]["content"] for body in stub.bodies] == ["Be brief.", *["Be brief.\n\nhello"] * 2]


async def test_an_endpoint_whose_roles_must_alternate() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        words = "Conversation roles must alternate user/assistant/user/assistant/..."
        return refusal(words) if len(body["messages"]) > 1 else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        assert (await llm.complete([*HELLO, *HELLO])).text == "fine"


@pytest.mark.parametrize(
    "words",
    [
        "Missing `reasoning_content` field in the assistant message at message index 1.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
    ],
)
async def test_an_endpoint_that_demands_the_reasoning_of_a_history_that_it_has_not_made(words) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        missing = any(m["role"] == "assistant" and not m.get("reasoning_content") for m in body["messages"])
        return refusal(words) if missing else said("fine")

    history = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call("1")], "reasoning_content": "because"}]
    async with stub_endpoint(answer) as stub, client(stub) as llm:
        assert (await llm.complete([*history, {"role": "tool", "tool_call_id": "c1", "content": "1"}])).text == "fine"
        assert "reasoning_content" in llm.adaptations[0]
    assert stub.bodies[-1]["messages"][1]["reasoning_content"] == "because"


async def test_an_endpoint_that_refuses_its_own_field_in_a_history() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        if any("reasoning" in message for message in body["messages"]):
            return refusal("'messages.1' : for 'role:assistant' property 'reasoning' is unsupported")
        return said("", tool_calls=[call("1")], reasoning="hm")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        first = await llm.complete(HELLO)
        history = [*HELLO, first.message(), {"role": "tool", "tool_call_id": "c1", "content": "1"}]
        await llm.complete(history)
        await llm.complete(history)
        assert "reasoning" in llm.adaptations[0]
    assert len(stub.bodies) == 4


async def test_an_endpoint_that_takes_no_empty_message() -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        empty = any(not message["content"] for message in body["messages"])
        return refusal("messages: text content blocks must be non-empty") if empty else said("fine")

    async with stub_endpoint(answer) as stub, client(stub) as llm:
        assert (await llm.complete([{"role": "user", "content": ""}])).text == "fine"
