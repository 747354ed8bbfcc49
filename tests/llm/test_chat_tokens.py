"""Messages to ids and back: above all, that a conversation's ids only ever grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("renderers")
pytest.importorskip("transformers")

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.messages import Completion
from tests.tiny_model import CHATML_TEMPLATE, SPECIAL_TOKENS, make_tokenizer

IM_END = SPECIAL_TOKENS.index("<|im_end|>")
TOOL = {"type": "function", "function": {"name": "python_repl", "description": "d", "parameters": {"type": "object"}}}
EXAMPLES = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    return path


@pytest.fixture(scope="module")
def codecs(folder: Path) -> dict[str, ChatTokens]:
    return {
        "default": ChatTokens(folder),
        "qwen3": ChatTokens(folder, "qwen3"),
        "qwen3-keep": ChatTokens(folder, {"name": "qwen3", "thinking_retention": "all"}),
        "qwen3-off": ChatTokens(folder, {"name": "qwen3", "enable_thinking": False}),
    }


def sampled(codec: ChatTokens, messages: list[Any], ids: list[int], tools: Any = None) -> Completion:
    """As the policy does it: a completion of these ids for that history."""
    prompt = codec.prompt(messages, tools)
    completion = Completion("", prompt_ids=prompt.ids, completion_ids=ids, history_key=prompt.history_key)
    codec.parse(completion, tools)
    return completion


def fresh(codec: ChatTokens, messages: list[Any]) -> list[int]:
    """A rendering of the whole conversation."""
    return codec._render([(codec._literal.marked(messages), None)])[0]


def encode(codec: ChatTokens, text: str) -> list[int]:
    return codec.tokenizer.encode(text, add_special_tokens=False)


def test_renderer_is_chosen_by_name_and_unknown_names_are_refused(folder: Path, codecs: dict[str, ChatTokens]) -> None:
    assert codecs["default"].renderer_name == "default"  # a local folder says nothing of its family
    assert codecs["qwen3"].renderer_name == "qwen3"
    assert codecs["qwen3"].supports_tools
    assert not codecs["default"].supports_tools
    with pytest.raises(ValueError, match="renderer 'qwen33'"):
        ChatTokens(folder, "qwen33")


@pytest.mark.parametrize("name", ["default", "qwen3", "qwen3-off"])
def test_batch_encoding_equals_the_renderer(codecs: dict[str, ChatTokens], name: str) -> None:
    codec = codecs[name]
    histories = [
        ([{"role": "user", "content": f"line {i} of 日本語 <im_end> \ud83d"[: 9 + i]}], None) for i in range(6)
    ]
    histories.append(([{"role": "system", "content": "s"}, {"role": "user", "content": ""}], None))
    batch = [prompt.ids for prompt in codec.prompts(histories)]
    assert batch == [codec.renderer.render_ids(m, tools=t, add_generation_prompt=True) for m, t in histories]


def test_truncation_that_a_tokenizer_file_carries_is_not_applied(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    codec = ChatTokens(tmp_path)
    text = "a long line of many words, more than eight tokens"
    ids = codec.prompt([{"role": "user", "content": text}], None).ids
    assert text in codec.tokenizer.decode(ids)
    assert len(ids) < 64


token_lists = st.lists(st.integers(0, 450), min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["", " ", "\n\n", "<think>", "x<|im_end|>", "<|im_start|>user\n", "```repl\nprint(1)\n```", "<tool_response>"]
)


@pytest.mark.parametrize("name", ["default", "qwen3", "qwen3-keep", "qwen3-off"])
@EXAMPLES
@given(
    question=texts,
    turns=st.lists(st.tuples(token_lists, st.booleans(), st.sampled_from(["user", "tool"]), texts), max_size=4),
)
@example(
    question="q", turns=[([300, 301], True, "user", "a"), ([302], False, "user", "b"), ([IM_END], False, "user", "")]
)
def test_next_prompt_begins_with_prompt_and_completion(
    codecs: dict[str, ChatTokens], name: str, question: str, turns: list[tuple[list[int], bool, str, str]]
) -> None:
    """Whatever was sampled: either the ids are kept exactly, or all is encoded afresh; never something between."""
    codec = codecs[name]
    messages: list[Any] = [{"role": "user", "content": question}]
    for ids, finished, role, observation in turns:
        ids = [token for token in ids if token not in codec.stop_token_ids] + [IM_END] * finished
        if not ids:
            continue
        completion = sampled(codec, messages, ids)
        messages = [*messages, completion.message(), {"role": role, "content": observation}]
        prompt = codec.prompt(messages, None)
        before = completion.prompt_ids + completion.completion_ids
        if prompt.extended:
            assert prompt.ids[: len(before)] == before
            assert len(prompt.ids) > len(before)
        else:
            assert prompt.ids == fresh(codec, messages)


@EXAMPLES
@given(
    replies=st.lists(st.tuples(token_lists, st.booleans()), min_size=1, max_size=4),
    observation=texts,
)
def test_template_path_extends_every_plain_reply(
    codecs: dict[str, ChatTokens], replies: list[tuple[list[int], bool]], observation: str
) -> None:
    """Invalid UTF-8, other ways to split a text, cut-off replies: all of them are kept, and the text of the whole
    conversation is what the template makes of it."""
    codec = codecs["default"]
    messages: list[Any] = [{"role": "user", "content": "q"}]
    for ids, finished in replies:
        ids = [token for token in ids if token >= len(SPECIAL_TOKENS)] + [IM_END] * finished
        if not ids:
            continue
        completion = sampled(codec, messages, ids)
        messages = [*messages, completion.message(), {"role": "user", "content": observation}]
        prompt = codec.prompt(messages, None)
        assert prompt.extended
        text = codec.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert codec.tokenizer.decode(prompt.ids) == text
        ordinary = not any(name in observation for name in codec.tokenizer.get_added_vocab())
        if ordinary and encode(codec, codec.tokenizer.decode(ids)) == ids and len(replies) == 1:
            assert prompt.ids == encode(codec, text)


def test_prompts_extends_in_a_batch_too(codecs: dict[str, ChatTokens]) -> None:
    codec = codecs["default"]
    first = [{"role": "user", "content": "q"}]
    completion = sampled(codec, first, [300, 301, IM_END])
    second = [*first, completion.message(), {"role": "user", "content": "more"}]
    fresh, extended = codec.prompts([(first, None), (second, None)])
    assert not fresh.extended
    assert extended.extended
    assert extended.ids == codec.prompt(second, None).ids


@pytest.mark.parametrize("name", ["default", "qwen3"])
def test_edited_history_forks(codecs: dict[str, ChatTokens], name: str) -> None:
    codec = codecs[name]
    first = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"}]
    completion = sampled(codec, first, [*encode(codec, "print(1)"), IM_END])
    new = {"role": "user", "content": "more"}
    assert codec.prompt([*first, completion.message(), new], None).extended
    assert not codec.prompt([first[1], completion.message(), new], None).extended  # an earlier message left out
    assert not codec.prompt([*first, completion.message(), new], [TOOL]).extended  # other tools
    assert not codec.prompt([*first, dict(completion.message()), new], None).extended
    edited = completion.message()
    edited["content"] = "print(2)"
    assert not codec.prompt([*first, edited, new], None).extended
    other = {"default": "qwen3", "qwen3": "default"}[name]
    assert not codecs[other].prompt([*first, completion.message(), new], None).extended  # another renderer's ids


def test_template_that_rewrites_earlier_replies_forks(tmp_path: Path) -> None:
    """Like those that drop the reasoning of all turns but the last."""
    template = CHATML_TEMPLATE.replace("message.content", "(message.content if loop.last else message.content[:3])")
    make_tokenizer(template).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    codec = ChatTokens(tmp_path)
    first = [{"role": "user", "content": "q"}]
    completion = sampled(codec, first, [*encode(codec, "a long reply"), IM_END])
    messages = [*first, completion.message(), {"role": "user", "content": "more"}]
    prompt = codec.prompt(messages, None)
    assert not prompt.extended
    assert prompt.ids == codec.renderer.render_ids(messages, add_generation_prompt=True)


@pytest.mark.parametrize("finished", [True, False])
def test_qwen3_think_block_and_tool_call_are_kept(codecs: dict[str, ChatTokens], finished: bool) -> None:
    codec = codecs["qwen3"]
    text = (
        "<think>\nlook first\n</think>\n\nI look.\n<tool_call>\n"
        '{"name": "python_repl", "arguments": {"code": "print(len(context))"}}\n</tool_call>'
    )
    messages: list[Any] = [{"role": "user", "content": "q"}]
    for _ in range(3):
        completion = sampled(codec, messages, encode(codec, text) + [IM_END] * finished, [TOOL])
        assert completion.reasoning.strip() == "look first"
        assert completion.text.strip() == "I look."
        (call,) = completion.tool_calls
        assert call["function"]["name"] == "python_repl"
        assert json.loads(call["function"]["arguments"]) == {"code": "print(len(context))"}
        answer = {"role": "tool", "tool_call_id": call["id"], "content": "1234 <|im_end|>"}
        messages = [*messages, completion.message(), answer]
        prompt = codec.prompt(messages, [TOOL])
        assert prompt.extended
        before = completion.prompt_ids + completion.completion_ids
        assert prompt.ids[: len(before)] == before
    ids = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert len(set(ids)) == 3


def test_qwen3_drops_reasoning_at_a_new_question_unless_told_to_keep_it(codecs: dict[str, ChatTokens]) -> None:
    for name, extended in (("qwen3", False), ("qwen3-keep", True)):
        codec = codecs[name]
        first = [{"role": "user", "content": "q"}]
        completion = sampled(codec, first, [*encode(codec, "<think>\nhm\n</think>\n\nyes"), IM_END])
        messages = [*first, completion.message(), {"role": "user", "content": "and now?"}]
        assert codec.prompt(messages, None).extended is extended


@pytest.mark.parametrize(
    ("block", "name", "arguments"),
    [
        ('{"name": "python_repl", "arguments": {"code": "é"}}', "python_repl", '{"code": "é"}'),
        ('{"name": "python_repl", "arguments": {"code": "x}', "", '{"name": "python_repl", "arguments": {"code": "x}'),
        ('{"arguments": {"code": "x"}}', "", '{"arguments": {"code": "x"}}'),
        ("print(1)", "", "print(1)"),
    ],
)
def test_malformed_tool_calls_keep_their_text(
    codecs: dict[str, ChatTokens], block: str, name: str, arguments: str
) -> None:
    codec = codecs["qwen3"]
    ids = [*encode(codec, f"<tool_call>\n{block}\n</tool_call>"), IM_END]
    completion = sampled(codec, [{"role": "user", "content": "q"}], ids, [TOOL])
    assert [call["function"] for call in completion.tool_calls] == [{"name": name, "arguments": arguments}]


def test_cut_off_tool_call_and_cut_off_thought(codecs: dict[str, ChatTokens]) -> None:
    codec = codecs["qwen3"]
    first = [{"role": "user", "content": "q"}]
    completion = sampled(codec, first, encode(codec, '<tool_call>\n{"name": "python_repl", "argu'), [TOOL])
    assert completion.tool_calls[0]["function"] == {"name": "", "arguments": '{"name": "python_repl", "argu'}
    completion = sampled(codec, first, encode(codec, "<think>\nstill thinking"), [TOOL])
    assert completion.text == ""
    assert "still thinking" in completion.reasoning


def test_description_names_the_tokenizer(codecs: dict[str, ChatTokens]) -> None:
    facts = codecs["qwen3-off"].describe()
    assert facts["renderer"]["enable_thinking"] is False
    assert facts["tokenizer_sha256"] == codecs["default"].describe()["tokenizer_sha256"]
    assert json.dumps(facts)
