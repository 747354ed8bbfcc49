"""The shipped tiny-rlm: its files, its template, and itself on the real vLLM."""

from __future__ import annotations

import asyncio
import hashlib
import json
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rlm_env
from rlm_env.prompts import load_prompt
from rlm_env.rollout import StopReason
from rlm_env.runs.profile import load_profile

pytest.importorskip("transformers")

MODEL = Path(rlm_env.__file__).parent / "models" / "tiny-rlm"
EASY = {"vocabulary": "easy", "lengths": [150, 300]}
ROLES = st.sampled_from(["system", "user", "assistant"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MESSAGES = st.lists(st.builds(lambda role, content: {"role": role, "content": content}, ROLES, TEXTS), min_size=1)


def config() -> dict:
    return {key: value for key, value in load_profile(MODEL).items() if key != "renderer"}


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture
async def policy(vllm_server):
    policy = vllm_server.policy(renderer=load_profile(MODEL)["renderer"])
    yield policy
    await policy.aclose()


def test_the_folder_is_complete_small_and_says_how_it_was_made():
    names = {path.name for path in MODEL.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {"tokenizer_config.json", "rlm_env.json", "README.md"} <= names
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 12_000_000
    record = json.loads((MODEL / "README.md").read_text("utf-8").split("```json\n")[1].split("```")[0])
    assert record.keys() >= {"seed", "steps", "versions", "losses", "copy_rate", "teachers"}
    assert record["weights_sha256"] == hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert len(record["by_environment"]) == 6
    for name, measured in record["by_environment"].items():
        assert measured["task_restated"] >= 0.8, name
        assert measured["well_formed"] >= 0.8, name


def test_the_profile_configures_the_loop(tokenizer):
    settings = rlm_env.RLMConfig(**config())
    prompt = load_prompt(settings.prompt)
    assert "$" not in prompt
    assert len(tokenizer.encode(prompt, add_special_tokens=False)) <= 60


def test_the_window_is_named_everywhere(tokenizer):
    shape = json.loads((MODEL / "config.json").read_text("utf-8"))
    assert shape["architectures"] == ["Qwen3ForCausalLM"]
    assert shape["max_position_embeddings"] == tokenizer.model_max_length == 2048
    assert shape["vocab_size"] == len(tokenizer)
    assert shape["eos_token_id"] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


@given(text=TEXTS)
@settings(max_examples=200)
def test_any_text_encodes_and_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@given(messages=MESSAGES)
@settings(max_examples=200)
def test_appending_messages_never_changes_what_came_before(tokenizer, messages):
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    for n in range(1, len(messages)):
        asked = messages[n]["role"] == "assistant"
        part = tokenizer.apply_chat_template(messages[:n], add_generation_prompt=asked, return_dict=False)
        assert ids[: len(part)] == part


def test_the_training_encoding_is_the_template(tokenizer):
    from tiny_rlm.tokenizer import encode_conversation

    messages = [
        {"role": "system", "content": "\n a"},
        {"role": "user", "content": "12 b \n"},
        {"role": "assistant", "content": "```repl\nprint(1)\n```"},
    ]
    ids, mask = encode_conversation(tokenizer, messages)
    assert ids == tokenizer.apply_chat_template(messages, return_dict=False)
    assert tokenizer.decode([i for i, own in zip(ids, mask, strict=True) if own]) == "```repl\nprint(1)\n```<|im_end|>"


def test_the_qwen3_renderer_takes_the_tokenizer_too(tokenizer):
    renderers = pytest.importorskip("renderers")
    renderer = renderers.create_renderer(tokenizer, renderers.Qwen3RendererConfig())
    ids = renderer.render_ids([{"role": "user", "content": "Label: the rain"}], add_generation_prompt=True)
    assert tokenizer.decode(ids) == "<|im_start|>user\nLabel: the rain<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.vllm
async def test_it_reads_lines_as_a_sub_llm(policy):
    from rlm_env.llm import Request, Sampling
    from tiny_rlm.oolong.reading import learn_labels

    oracle = learn_labels(1, lengths=2000, seed=5)
    sampling = Sampling(**load_profile(MODEL)["sub"])
    requests = [Request([{"role": "user", "content": f"Label: {text}"}], sampling=sampling) for text in oracle.label_of]
    answers = await policy.complete_many(requests)
    right = [a.text == label for a, label in zip(answers, oracle.label_of.values(), strict=True)]
    assert len(right) > 50
    assert sum(right) / len(right) >= 0.95


@pytest.mark.vllm
async def test_it_drives_the_repl_to_scored_answers_at_any_length(policy):
    async with rlm_env.load_environment("oolong-rlm", **EASY | {"lengths": [150, 400, 6000]}, **config()) as env:
        tasks = list(islice(env.tasks("eval"), 48))
        rollouts = await asyncio.gather(*(env.rollout(task, policy) for task in tasks))
        ready = [r.stop_reason is StopReason.READY for r in rollouts]
        scores = [env.score(task, r).value for task, r in zip(tasks, rollouts, strict=True)]
    assert sum(ready) / len(ready) >= 0.75
    assert sum(scores) / len(scores) >= 0.12
    assert any(len(r.sub_calls) > 100 for r in rollouts)
    assert max(r.turns[0].usage.prompt_tokens for r in rollouts) < 200
    for rollout in rollouts:
        for turn in rollout.turns:
            assert len(turn.completion_ids) == len(turn.logprobs) <= 256
            assert len(turn.prompt_ids) + len(turn.completion_ids) <= 2048
