"""Rollouts on endpoints that refuse what real ones refuse, and that reply as real ones do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rlm_env.environment import Environment
from rlm_env.llm import EngineRefused
from rlm_env.rollout import Rollout, StopReason
from rlm_env.scaffolds import make_scaffold
from rlm_env.task import Task
from tests.llm.replies import call, client, refusal, said
from tests.stub_endpoint import stub_endpoint

TASK = Task("q", "abc", gold="x", id="t")
DONE = 'answer["content"] = "x"\nanswer["ready"] = True'
FINISH = said(tool_calls=[call(DONE, "z")])
Check = Callable[[dict[str, Any]], str | None]
"""(message) -> why a strict endpoint refuses it, or None."""


class Plain(Environment):
    name = "plain"

    def tasks(self, split):
        yield TASK

    def score(self, task, rollout):
        return float(rollout.answer == task.gold)


class Looking(Plain):
    def tools(self, task):
        async def look(word: str) -> str:
            """Looks a word up."""
            return f"{word}: x"

        return [look]


@pytest.fixture
def roll(pools):
    """Plays a rollout on an endpoint."""

    async def play(answer: Any, name: str = "rlm", environment: Environment | None = None, **options: Any) -> Rollout:
        scaffold = make_scaffold(name, environment or Plain(), {"max_turns": 4, **options}, pools=pools)
        async with stub_endpoint(answer) as stub, client(stub, retries=0) as llm:
            try:
                return await scaffold.rollout(TASK, llm)
            finally:
                await scaffold.aclose()

    return play


def strict(first: Any, check: Check) -> Any:
    """Sends `first`, then finishes if every message of the history passes the check."""

    def answer(_: str, body: dict[str, Any]) -> Any:
        for message in body["messages"]:
            if why := check(message):
                return refusal(why)
        return first if len(body["messages"]) == 2 else FINISH

    return answer


def arguments_are_text(message: dict[str, Any]) -> str | None:
    calls = message.get("tool_calls", ())
    return None if all(isinstance(c["function"]["arguments"], str) for c in calls) else "expected a string"


def arguments_are_json(message: dict[str, Any]) -> str | None:
    for one in message.get("tool_calls", ()):
        try:
            if not isinstance(json.loads(one["function"]["arguments"]), dict):
                return "arguments must be an object"
        except ValueError as error:
            return str(error)
    return None


def ids_are_there(message: dict[str, Any]) -> str | None:
    ids = [one.get("id") for one in message.get("tool_calls", ())]
    return None if all(ids) and len({*ids}) == len(ids) else "tool call id must be a non-empty, unique string"


def names_are_plain(message: dict[str, Any]) -> str | None:
    names = [one["function"]["name"] for one in message.get("tool_calls", ())]
    return None if all(name.replace("_", "").isalnum() for name in names) else "string does not match pattern"


def replies_are_not_empty(message: dict[str, Any]) -> str | None:
    if message["role"] != "assistant" or message.get("content") or message.get("tool_calls"):
        return None
    return "Assistant message must have either content or tool_calls, but not none."


def reasoning_comes_back(message: dict[str, Any]) -> str | None:
    if message["role"] != "assistant" or not message.get("tool_calls") or "reasoning_content" in message:
        return None
    return "Missing `reasoning_content` field in the assistant message at message index 2."


def signature_comes_back(message: dict[str, Any]) -> str | None:
    signed = all("extra_content" in one for one in message.get("tool_calls", ()))
    return None if signed else "Function call is missing a thought_signature in functionCall parts."


LOOK = "print(len(context))"
CUT = '{"code": "rows = []\\nfor'
SIGNED = {**call(LOOK), "extra_content": {"google": {"thought_signature": "s"}}}


@pytest.mark.parametrize(
    ("first", "check"),
    [
        (said(tool_calls=[call(arguments={"code": LOOK})]), arguments_are_text),
        (said(tool_calls=[call(LOOK, None), call(LOOK, None)]), ids_are_there),
        (said(tool_calls=[call(LOOK, "a"), call(LOOK, "a")]), ids_are_there),
        (said(None, "length", tool_calls=[call(arguments=CUT)]), arguments_are_json),
        (said(tool_calls=[call(arguments='"print(1)"')]), arguments_are_json),
        (said(tool_calls=[call(LOOK, name="python_repl<|channel|>commentary")]), names_are_plain),
        (said(None, "length", reasoning_content="let me think"), replies_are_not_empty),
        (said("", reasoning_content="I look first.", tool_calls=[call(LOOK)]), reasoning_comes_back),
        (said("", tool_calls=[call(LOOK)]), reasoning_comes_back),
        (said("", tool_calls=[SIGNED]), signature_comes_back),
    ],
)
async def test_a_rollout_goes_on_with_a_strict_endpoint(roll, first, check) -> None:
    record = await roll(strict(first, check))
    assert (record.error, record.answer) == (None, "x")
    assert len(record.turns) == 2
    tools = [m["tool_call_id"] for m in record.messages if m["role"] == "tool"]
    assert len(record.turns[0].tool_calls) == len(tools) or not tools


async def test_the_record_keeps_what_the_model_said(roll) -> None:
    first = said(None, "length", tool_calls=[call(arguments=CUT, id=None)], reasoning_content="hm")
    record = await roll(strict(first, arguments_are_json))
    [raw] = record.messages[2]["tool_calls"]
    assert raw["function"]["arguments"] == CUT
    assert record.turns[0].tool_calls == [raw]
    assert record.turns[0].reasoning == "hm"


async def test_a_reply_in_parts(roll) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    record = await roll(lambda *_: said([thought, {"type": "text", "text": f"```repl\n{DONE}\n```"}]))
    assert (record.answer, record.turns[0].reasoning) == ("x", "hm")
    plain = await roll(lambda *_: said([thought, {"type": "text", "text": "x"}]), "standard")
    assert plain.answer == "x"


async def test_numbers_of_usage_as_text_are_counted(roll) -> None:
    record = await roll(lambda *_: FINISH | {"usage": {"prompt_tokens": "12", "completion_tokens": "3"}})
    assert (record.root_usage.prompt_tokens, record.root_usage.completion_tokens) == (12, 3)


async def test_a_call_that_the_endpoint_could_not_read_is_a_turn(roll) -> None:
    failed = refusal("Failed to call a function.", code="tool_use_failed", failed_generation="<function=python_repl{")
    replies = iter([failed, FINISH])
    record = await roll(lambda *_: next(replies))
    assert (record.answer, len(record.turns), record.error) == ("x", 2, None)
    replies = iter([failed, said("x")])
    record = await roll(lambda *_: next(replies), "standard", Looking())
    assert (record.answer, len(record.turns)) == ("x", 2)
    assert "could not be read" in record.turns[0].observation


NO_TOOLS = [
    (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    (400, "registry.ollama.ai/library/gemma3:4b does not support tools"),
    (404, "No endpoints found that support tool use."),
]


@pytest.mark.parametrize(("status", "words"), NO_TOOLS)
async def test_without_tools_code_is_asked_for_in_fences(roll, status, words) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        if "tools" in body:
            return refusal(words, status)
        assert "```repl" in body["messages"][0]["content"]
        return said(f"```repl\n{DONE}\n```")

    record = await roll(answer)
    assert (record.stop_reason, record.answer, len(record.turns)) == (StopReason.READY, "x", 1)
    assert "```repl" in record.messages[0]["content"]
    asked = await roll(answer, action="tool")
    assert asked.stop_reason is StopReason.ERROR
    assert 'action = "fence"' in (asked.error or "")


async def test_tools_that_are_refused_in_the_middle_of_a_rollout(roll) -> None:
    def answer(_: str, body: dict[str, Any]) -> Any:
        if "tools" not in body:
            assert all("tool_calls" not in m and m["role"] != "tool" for m in body["messages"])
            return said(f"```repl\n{DONE}\n```")
        return said(tool_calls=[call(LOOK)]) if len(body["messages"]) == 2 else refusal(*NO_TOOLS[1][::-1])

    record = await roll(answer)
    assert (record.answer, len(record.turns), record.error) == ("x", 2, None)


LOOK_UP = '```tool\n{"name": "look", "arguments": {"word": "w"}}\n```'


def text_protocol(_: str, body: dict[str, Any]) -> Any:
    """An endpoint without tools, whose model calls tools in the text protocol and answers with what it was told."""
    if "tools" in body:
        return refusal(NO_TOOLS[0][1])
    last = body["messages"][-1]["content"]
    return said("x") if "w: x" in last else said(LOOK_UP)


@pytest.mark.parametrize("name", ["standard", "summary"])
async def test_the_environment_s_tools_are_called_as_text_then(roll, name) -> None:
    record = await roll(text_protocol, name, Looking())
    assert (record.error, record.answer, record.metrics["tool_calls_look"]) == (None, "x", 1)


async def test_sub_llms_call_them_as_text_too(roll) -> None:
    code = (
        'a = llm_batch(["one", "two"])\nanswer["content"] = "x" if a == ["x", "x"] else str(a)\nanswer["ready"] = True'
    )

    def answer(path: str, body: dict[str, Any]) -> Any:
        root = "python_repl" in str(body.get("tools")) or "llm_batch" in str(body["messages"][0]["content"])
        return said(f"```repl\n{code}\n```") if root else text_protocol(path, body)

    record = await roll(answer, environment=Looking(), action="fence")
    assert (record.error, record.answer) == (None, "x")
    assert record.metrics["sub_calls_failed"] == 0
    assert record.metrics["tool_calls_look"] == 2
    assert len(record.sub_calls) == 2
    assert "```tool" in record.sub_calls[0].messages[0]["content"]


DISCONNECTED = {"code": 502, "message": "Provider disconnected"}
IN_BAND = {
    "error": {"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": DISCONNECTED}]},
    "error object": {"error": {"code": 400, "message": "It broke"}},
    "filter": said(None, "content_filter"),
    "half and filter": said("The first half of", "content_filter"),
    "only reasoning": said(None, reasoning_content="8, I think"),
    "only thoughts": said("<think>8, I think</think>"),
    "nothing": {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
}


@pytest.mark.parametrize("failure", IN_BAND)
async def test_failures_in_band_are_no_answers(roll, failure) -> None:
    ask = 'r = llm_batch(["p"])[0]\nanswer["content"] = f"{type(r).__name__} {bool(r)} {r}"\nanswer["ready"] = True'

    def answer(_: str, body: dict[str, Any]) -> Any:
        return said(tool_calls=[call(ask)]) if "tools" in body else IN_BAND[failure]

    record = await roll(answer)
    assert record.answer.startswith("FailedCall False")
    assert record.metrics["sub_calls_failed"] == 1
    for name in ("standard", "summary"):
        plain = await roll(answer, name)
        assert (plain.stop_reason, plain.answer) == (StopReason.ERROR, ""), name
        assert plain.error


async def test_what_a_withheld_reply_cost_is_counted(roll) -> None:
    plain = await roll(lambda *_: said(None, "content_filter"), "standard")
    assert (plain.root_usage.prompt_tokens, plain.root_usage.completion_tokens) == (7, 2)
    scaffold = make_scaffold("summary", Plain(), {"root": {"max_tokens": 50}, "window": 400})
    async with stub_endpoint(lambda *_: said(None, "content_filter")) as stub, client(stub) as llm:
        notes = await scaffold.rollout(Task("q", "abc " * 2000, gold="x", id="t"), llm)
    assert (notes.stop_reason, notes.sub_usage.prompt_tokens) == (StopReason.ERROR, 7)


async def test_a_wrong_sub_model_ends_the_rollout_after_a_few_refusals(pools) -> None:
    ask = 'answer["content"] = str(llm_batch(["p"] * 5))\nanswer["ready"] = True'

    def answer(_: str, body: dict[str, Any]) -> Any:
        wrong = refusal("The model `sub` does not exist", 404, code="model_not_found")
        return wrong if body["model"] == "sub" else said(tool_calls=[call(ask)])

    scaffold = make_scaffold("rlm", Plain(), pools=pools)
    async with stub_endpoint(answer) as stub, client(stub) as root, client(stub) as sub:
        sub.name = "sub"
        with pytest.raises(EngineRefused, match=r"`sub` does not exist.*model"):
            await scaffold.rollout(TASK, root, sub)
    await scaffold.aclose()
