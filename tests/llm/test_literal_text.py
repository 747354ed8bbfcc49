"""Control tokens that stand in the text of messages never become control tokens, with any renderer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("renderers")
pytest.importorskip("transformers")

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.messages import Completion
from tests.tiny_model import MARKER_TOKENS, SPECIAL_TOKENS, make_tokenizer

NAMES = [*SPECIAL_TOKENS, *MARKER_TOKENS]
EXAMPLES = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
texts = st.lists(
    st.sampled_from([*NAMES, "<|im_", "start|>", "<", "|>", "one", " ", "\n", "system\n", "x"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTokens]:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    return {"default": ChatTokens(folder), "qwen3": ChatTokens(folder, "qwen3")}


def controls(codec: ChatTokens, ids: list[int]) -> list[int]:
    return [index for index in ids if index in codec.tokenizer.added_tokens_decoder]


def conversation(text: str, role: str) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    if role == "system":
        return [{"role": "system", "content": text}, messages[1]]
    if role == "user":
        return [messages[0], {"role": "user", "content": text}]
    if role == "assistant":
        return [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": "more"}]
    return [*messages, {"role": "assistant", "content": "a"}, {"role": "tool", "tool_call_id": "1", "content": text}]


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
@pytest.mark.parametrize("name", ["default", "qwen3"])
@EXAMPLES
@given(text=texts)
def test_names_of_control_tokens_are_text(codecs, name, role, text):
    codec = codecs[name]
    ids = codec.prompt(conversation(text, role), None).ids
    assert controls(codec, ids) == controls(codec, codec.prompt(conversation("x", role), None).ids)
    assert text.strip() in codec.tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["default", "qwen3"])
@EXAMPLES
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_ids_of_ordinary_text_are_those_of_the_tokenizer(codecs, name, text):
    codec = codecs[name]
    messages = [{"role": "user", "content": text}]
    if not any(control in text for control in NAMES):
        assert codec.prompt(messages, None).ids == codec.renderer.render_ids(messages, add_generation_prompt=True)


@pytest.mark.parametrize("name", ["default", "qwen3"])
def test_text_beside_a_name_keeps_its_ids(codecs, name):
    codec = codecs[name]
    ordinary = "The quick brown fox jumps over the lazy dog.\n" * 3
    ids = codec.prompt([{"role": "user", "content": f"{ordinary}\n<|im_end|>\n{ordinary}"}], None).ids
    alone = codec.tokenizer.encode(ordinary, add_special_tokens=False)[1:-1]
    at = [i for i in range(len(ids)) if ids[i : i + len(alone)] == alone]
    assert len(at) == 2


@pytest.mark.parametrize("name", ["default", "qwen3"])
@EXAMPLES
@given(observation=texts)
def test_observations_extend_a_conversation_without_new_control_tokens(codecs, name, observation):
    codec = codecs[name]
    first = [{"role": "user", "content": "q"}]
    prompt = codec.prompt(first, None)
    ids = [*codec.tokenizer.encode("print(1)", add_special_tokens=False), SPECIAL_TOKENS.index("<|im_end|>")]
    completion = Completion("", prompt_ids=prompt.ids, completion_ids=ids, history_key=prompt.history_key)
    codec.parse(completion, None)

    def after(text: str) -> list[int]:
        return codec.prompt([*first, completion.message(), {"role": "user", "content": text}], None).ids

    before = prompt.ids + ids
    assert after(observation)[: len(before)] == before
    assert controls(codec, after(observation)) == controls(codec, after("x"))


def test_a_reply_that_copies_a_name_from_the_context_forges_no_turn(codecs):
    """Sampled letter by letter it is text, also where the conversation has to be encoded afresh."""
    codec = codecs["default"]
    messages: list[Any] = [{"role": "user", "content": "q"}]
    prompt = codec.prompt(messages, None)
    copied = codec._literal.encode("<" + codec._literal._mark + "|im_start|>")
    assert codec.tokenizer.decode(copied) == "<|im_start|>"
    completion = Completion("", prompt_ids=prompt.ids, completion_ids=copied, history_key=prompt.history_key)
    codec.parse(completion, None)
    edited = [{"role": "user", "content": "another q"}, completion.message(), {"role": "user", "content": "x"}]
    ids = codec.prompt(edited, None).ids
    assert len(controls(codec, ids)) == 2 + 2 + 2 + 1


def test_layout_tokens_of_a_vocabulary_are_ordinary_text():
    from tokenizers import AddedToken

    from rlm_env.llm.literal_text import LiteralText

    tokenizer = make_tokenizer()
    for content in ("\n\n", "    ", "<table>", "</b>", "COVID-19"):
        tokenizer.backend_tokenizer.add_tokens([AddedToken(content, special=False, normalized=False)])
    tokenizer.backend_tokenizer.add_tokens([AddedToken("<|fim_prefix|>", special=False, normalized=False)])
    literal = LiteralText(tokenizer)
    layout = [{"role": "user", "content": "a\n\nb    <table></b> COVID-19"}]
    assert literal.marked(layout) == layout
    assert literal.marked([{"role": "user", "content": "<|fim_prefix|>"}]) != [
        {"role": "user", "content": "<|fim_prefix|>"}
    ]
