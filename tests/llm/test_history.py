"""Histories as strict endpoints take them; the record keeps what the model said."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rlm_env.llm.history import EMPTY_REPLY, HistoryRules, object_text, valid_history, valid_name
from rlm_env.messages import Completion
from tests.llm.replies import call

ASK = {"role": "user", "content": "q"}


def sent(*messages: dict[str, Any], **rules: Any) -> list[dict[str, Any]]:
    return valid_history([ASK, *messages], HistoryRules(**rules))


def assistant(*calls: dict[str, Any], content: Any = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": [*calls]}


def result(id: Any, content: str = "out") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


@pytest.mark.parametrize("ids", [(None, None), ("", ""), ("a", "a"), ("a", None), (7, 7), ("  ", "\n")])
def test_ids_become_unique_and_results_follow_in_their_order(ids):
    messages = [assistant(call("1", ids[0]), call("2", ids[1])), result(ids[0], "first"), result(ids[1], "second")]
    found = sent(*messages, *messages)
    calls = [one["id"] for message in found for one in message.get("tool_calls", ())]
    assert len({*calls}) == 4
    assert all(isinstance(one, str) and one for one in calls)
    results = [(message["tool_call_id"], message["content"]) for message in found if message["role"] == "tool"]
    assert results == list(zip(calls, ["first", "second"] * 2, strict=True))
    longer = sent(*messages, *messages, assistant(call("3", ids[0])), result(ids[0]))
    assert longer[: len(found)] == found  # an endpoint's cache of prefixes stays good
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", one) for one in calls if one.startswith("call0"))
    assert messages[0]["tool_calls"][0]["id"] == ids[0]  # the record is as it was


def test_a_call_without_a_result_gets_one_and_a_result_without_a_call_is_said_by_the_user():
    found = sent(assistant(call("1", "a"), call("2", "b")), result("b"), {"role": "user", "content": "and?"})
    assert [(m["role"], m.get("tool_call_id")) for m in found[2:]] == [("tool", "b"), ("tool", "a"), ("user", None)]
    assert sent(result("x", "lost"))[1] == {"role": "user", "content": "lost"}
    assert [m["role"] for m in sent(assistant(call("1", "a")), result("a"), result("a", "again"))][2:] == [
        "tool",
        "user",
    ]


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"code": "x"}, {"code": "x"}),
        ('{"code": "x"}', {"code": "x"}),
        ("", {}),
        (None, {}),
        ('{"code": "rows = []\\nfor', {"code": '{"code": "rows = []\\nfor'}),
        ('{"code": "a\nb"}', {"code": '{"code": "a\nb"}'}),
        ('{"code": "x"}</tool_call>', {"code": '{"code": "x"}</tool_call>'}),
        ("print(1)", {"code": "print(1)"}),
        ('"print(1)"', {"code": '"print(1)"'}),
        ('"{\\"code\\": \\"x\\"}"', {"code": "x"}),
        ("[1, 2]", {"code": "[1, 2]"}),
        ([1], {"code": "[1]"}),
        ('{"n": NaN}', {"code": '{"n": NaN}'}),
        ("[" * 100_000, {"code": "[" * 100_000}),
        ("null", {}),
    ],
)
def test_arguments_become_an_object_that_keeps_the_words(arguments, value):
    text = object_text(arguments, "code")
    assert isinstance(text, str)
    assert json.loads(text) == value


def test_words_that_are_no_json_become_the_argument_that_the_tool_has():
    tool = {"function": {"name": "search", "parameters": {"properties": {"query": {}}, "required": ["query"]}}}
    found = valid_history([ASK, assistant(call(name="search", arguments="capital of"))], HistoryRules(), [tool])
    assert json.loads(found[1]["tool_calls"][0]["function"]["arguments"]) == {"query": "capital of"}


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("python_repl", "python_repl"),
        ("python_repl<|channel|>commentary", "python_repl"),
        ("<|constrain|>python_repl", "python_repl"),
        ("functions.python_repl", "python_repl"),
        ("python repl", "python_repl"),
        ("python_repl</tool_call>", "python_repl"),
        ("", "unnamed_tool"),
        (None, "unnamed_tool"),
        ("<|end|>", "unnamed_tool"),
        ("x" * 100, "x" * 64),
    ],
)
def test_names_have_no_control_tokens(name, valid):
    assert valid_name(name) == valid


@pytest.mark.parametrize("content", ["", None, "  \n", []])
def test_an_empty_reply_is_sent_with_a_text(content):
    assert sent({"role": "assistant", "content": content})[1] == {"role": "assistant", "content": EMPTY_REPLY}
    assert sent(assistant(call("1"), content=content), result("c1", ""))[1]["tool_calls"]


def reply(**fields: Any) -> dict[str, Any]:
    made = Completion("", [call("1")], reasoning="I look.", returned_fields=fields)
    return made.message()


def test_what_an_endpoint_put_into_its_reply_goes_back_with_tool_calls():
    details = [{"type": "reasoning.encrypted", "data": "x"}]
    message = reply(reasoning="I look.", reasoning_details=details)
    found = sent(message, returned={"reasoning", "reasoning_details"})[1]
    assert (found["reasoning"], found["reasoning_details"]) == ("I look.", details)
    assert "reasoning_content" not in found
    assert "reasoning" not in sent(message)[1]  # of another endpoint
    assert sent(dict(message), returned={"reasoning_content"})[1]["reasoning_content"] == "I look."


def test_signatures_of_a_tool_call_go_back():
    signed = {**call("1"), "extra_content": {"google": {"thought_signature": "sig"}}}
    signed["function"] = {**signed["function"], "thought_signature": "sig2"}
    found = sent(assistant(signed), returned={"extra_content", "thought_signature"})[1]["tool_calls"][0]
    assert found["extra_content"] == {"google": {"thought_signature": "sig"}}
    assert found["function"]["thought_signature"] == "sig2"
    assert sent(assistant(signed))[1]["tool_calls"] == [call("1")]


def test_demanded_reasoning_goes_back_with_every_reply_and_is_never_empty():
    found = sent({"role": "assistant", "content": "a"}, reply(), result("c1"), demanded="reasoning_content")
    assert [m.get("reasoning_content") for m in found] == [None, " ", "I look.", None]


def test_calls_and_results_as_text_for_an_endpoint_without_tools():
    messages = [assistant(call("print(1)", "a"), call(name="f", id="b", arguments='{"x": 1}'), content="Now.")]
    found = sent(*messages, result("a", "1"), {**result("b", "2"), "name": "f"}, tools=False)
    assert [m["role"] for m in found] == ["user", "assistant", "user", "user"]
    assert not any("tool_calls" in m or "tool_call_id" in m for m in found)
    assert found[1]["content"].startswith("Now.\n\n```repl\nprint(1)\n```\n\n```tool\n")


def test_a_system_message_moves_into_the_question_where_the_role_is_refused():
    system = {"role": "system", "content": "Be brief."}
    assert valid_history([system, ASK], HistoryRules(system=False)) == [{"role": "user", "content": "Be brief.\n\nq"}]
    assert valid_history([system], HistoryRules(system=False)) == [{"role": "user", "content": "Be brief."}]


def test_messages_of_one_role_are_joined_where_roles_must_alternate():
    found = sent({"role": "user", "content": "more"}, {"role": "assistant", "content": "a"}, repeated_roles=False)
    assert [(m["role"], m["content"]) for m in found] == [("user", "q\n\nmore"), ("assistant", "a")]


def test_lone_surrogates_are_not_sent():
    found = sent(assistant(call("\ud800x", "a")), result("a", "\udfff\U0001f600"))
    assert "\udfff" not in found[2]["content"]
    assert found[2]["content"].endswith("\U0001f600")
    json.dumps(found, ensure_ascii=False).encode()


def test_replies_go_back_as_they_came_where_the_endpoint_knows_a_conversation_by_its_messages():
    odd = call("not JSON {", "call_0", name="functions.python_repl<|channel|>")
    messages = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "", "reasoning_content": "only thought"},
        {"role": "user", "content": "go on"},
        {**assistant(odd), "reasoning_content": "I look."},
        result("call_0"),
        assistant(odd),  # its id again: some renderers number the calls of each reply from 0
        result("call_0"),
    ]
    assert sent(*messages, verbatim=True) == [ASK, *messages]
    assert sent(*messages)[2]["content"] == EMPTY_REPLY  # elsewhere all of that is repaired
    message = Completion("text", reasoning="hm", returned_fields={"reasoning": "hm", "signature": "x"}).message()
    back = {"role": "assistant", "content": "text", "reasoning_content": "hm"}
    assert sent(message, verbatim=True)[1] == back
    assert sent(message, reasoning=True)[1] == back
    assert sent(message)[1] == {"role": "assistant", "content": "text"}


def test_reasoning_that_an_endpoint_refuses_is_not_sent_back():
    message = {"role": "assistant", "content": "text", "reasoning_content": "hm"}
    assert sent(message, reasoning=True, unwanted={"reasoning_content"})[1] == {"role": "assistant", "content": "text"}
    theirs = sent(reply(reasoning="I look."), result("c1"), reasoning=True, returned={"reasoning"})[1]
    assert theirs["reasoning"] == "I look."
    assert "reasoning_content" not in theirs  # under their own name, and once
