"""The tokenizer of tiny-rlm and its chat template: conversations with tool calls, as it learns them and as an engine
gets them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("renderers")
pytest.importorskip("transformers")

from deepdive_rlm import DeepDive
from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.messages import Completion, Message
from rlm_env.tools.box import ToolBox
from tiny_rlm.tokenizer import TOOL_RENDERER, encode_conversation, train_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search_web",
            "description": "Searches the web.",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}, "count": {"type": "integer"}}},
        },
    },
    {"type": "function", "function": {"name": "stop"}},
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MESSAGE = st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user", "tool"]), TEXT),
    st.builds(
        lambda text, values: {"role": "assistant", "content": text, "tool_calls": [call(value) for value in values]},
        TEXT,
        st.lists(TEXT, max_size=2),
    ),
)


def call(query: str, **more: Any) -> dict[str, Any]:
    arguments = json.dumps({"query": query, **more}, ensure_ascii=False)
    return {"id": "c", "type": "function", "function": {"name": "search_web", "arguments": arguments}}


CHAT: list[Message] = [
    {"role": "user", "content": "bridge; hat"},
    {"role": "assistant", "content": "", "tool_calls": [call("bridge hat", count=2)]},
    {"role": "tool", "tool_call_id": "c", "name": "search_web", "content": "1. Old Bridge\nhttp://a.example/b"},
    {"role": "assistant", "content": "Two more.\n", "tool_calls": [call("a"), call('été "b"')]},
    {"role": "tool", "tool_call_id": "c", "name": "search_web", "content": "No results."},
    {"role": "tool", "tool_call_id": "c", "name": "search_web", "content": "No results."},
    {"role": "assistant", "content": "1836"},
]
RENDERED = """\
<|im_start|>system
Tools:
search_web(query, count)
stop()<|im_end|>
<|im_start|>user
bridge; hat<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "search_web", "arguments": {"query": "bridge hat", "count": 2}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
1. Old Bridge
http://a.example/b
</tool_response><|im_end|>
<|im_start|>assistant
Two more.
<tool_call>
{"name": "search_web", "arguments": {"query": "a"}}
</tool_call>
<tool_call>
{"name": "search_web", "arguments": {"query": "été \\"b\\""}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
No results.
</tool_response><|im_end|>
<|im_start|>user
<tool_response>
No results.
</tool_response><|im_end|>
<|im_start|>assistant
1836<|im_end|>
"""


@pytest.fixture(scope="module")
def tokenizer():
    words = (
        '{"name": "search_web", "arguments": {"query": "old bridge", "count": 2, "page": 1}} Tools scan_page open_lines'
    )
    return train_tokenizer([words, "url find first last 1836 stop"] * 9, vocab_size=600, window=2048)


@pytest.fixture(scope="module")
def tokens(tokenizer, tmp_path_factory) -> ChatTokens:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return ChatTokens(folder, TOOL_RENDERER)


def test_tools_calls_and_results_are_written_in_qwen3s_form(tokenizer):
    assert tokenizer.apply_chat_template(CHAT, tools=TOOLS, tokenize=False) == RENDERED


def test_a_system_message_keeps_its_text_before_the_tools(tokenizer):
    text = tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}], tools=TOOLS, tokenize=False)
    assert text == "<|im_start|>system\nBe brief.\n\nTools:\nsearch_web(query, count)\nstop()<|im_end|>\n"


def test_arguments_may_be_parsed_already_and_a_reply_may_lack_its_content(tokenizer):
    parsed = {"name": "search_web", "arguments": {"query": "été"}}
    message = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": parsed}]}
    text = tokenizer.apply_chat_template([message], tokenize=False)
    assert json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0]) == parsed
    assert "None" not in text


def test_what_is_produced_are_the_replies_with_their_calls(tokenizer):
    ids, mask = encode_conversation(tokenizer, CHAT, TOOLS)
    assert tokenizer.decode(ids) == RENDERED
    produced = tokenizer.decode([i for i, own in zip(ids, mask, strict=True) if own])
    replies = [part.split("<|im_end|>")[0] + "<|im_end|>" for part in RENDERED.split("<|im_start|>assistant\n")[1:]]
    assert produced == "".join(replies)


@given(messages=st.lists(MESSAGE, min_size=1, max_size=5), tools=st.sampled_from([None, TOOLS]))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_the_encoding_is_the_template_and_appending_changes_nothing_before(tokenizer, messages, tools):
    ids, _ = encode_conversation(tokenizer, messages, tools)
    assert ids == tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
    assert (
        ids[: len(encode_conversation(tokenizer, messages[:-1], tools)[0])]
        == encode_conversation(tokenizer, messages[:-1], tools)[0]
    )


def test_a_sampled_tool_call_is_parsed_and_its_ids_are_extended(tokens):
    calls = [
        ('<tool_call>\n{"name": "search_web", "arguments": {"query": "bridge hat", "count": 2}}\n</tool_call>', None),
        ('I open it.\n<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>', None),
        ("<tool_call>\n{not JSON}\n</tool_call>", "{not JSON}"),
    ]
    messages: list[Message] = [{"role": "user", "content": "bridge; hat"}]
    before: list[int] = []
    for text, unread in calls:
        prompt = tokens.prompt(messages, TOOLS)
        assert prompt.ids[: len(before)] == before
        assert prompt.extended == bool(before)
        ids = tokens.tokenizer.encode(text + "<|im_end|>", add_special_tokens=False)
        completion = Completion("", prompt_ids=prompt.ids, completion_ids=ids, history_key=prompt.history_key)
        tokens.parse(completion, TOOLS)
        function = completion.tool_calls[0]["function"]
        if unread is None:
            assert function == json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0]) | {
                "arguments": function["arguments"]
            }
        else:
            assert function == {"name": "", "arguments": unread}
        messages += [
            completion.message(),
            {"role": "tool", "tool_call_id": "c", "name": "x", "content": "a <tool_call>"},
        ]
        before = prompt.ids + ids
    assert tokens.prompt(messages, TOOLS).ids[: len(before)] == before


def test_the_tools_of_deepdive_take_few_tokens(tokens):
    environment = DeepDive(profile="tiny")
    schemas = ToolBox(environment.tools(environment.task("train", 0))).schemas
    question: list[Message] = [{"role": "user", "content": ""}]
    assert len(tokens.prompt(question, schemas).ids) - len(tokens.prompt(question, None).ids) < 60
