"""tiny-rlm's window holds the prompts of every environment, tips included, and three turns after them."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

import pytest

import rlm_env
from rlm_env.context import context_text
from rlm_env.protocol import user_message
from rlm_env.registry import load_environment
from tiny_rlm.all_lessons import all_lessons
from tiny_rlm.profile import PROFILE, WINDOW, make_environment

pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
MODEL = Path(rlm_env.__file__).parent / "models" / "tiny-rlm"
MATRIX = tomllib.loads((ROOT / "configs" / "eval" / "matrix_tiny.toml").read_text("utf-8"))
ENVIRONMENTS = {entry["name"]: entry["options"] for entry in MATRIX["environments"]}
TURNS = 3
TASKS = 12


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_prompt_with_tips_leaves_room_for_three_turns(tokenizer, name):
    """Replies as long as they may be, and observations as long as they may be, full of what the task is about."""
    loop = {key: value for key, value in PROFILE.items() if key != "renderer"}
    env = load_environment(name, **ENVIRONMENTS[name], **loop, tips=True)
    assert env.environment.tips
    assert env.environment.tips.split("\n")[0] in env.system_prompt(use_tool=False)
    used = {}
    for task in env.tasks("eval").take(TASKS):
        shown = context_text(task.context) or task.question
        observed = {"role": "user", "content": "Output:\n" + shown[: PROFILE["max_observation_chars"]]}
        messages = [
            {"role": "system", "content": env.system_prompt(use_tool=False)},
            {"role": "user", "content": user_message(task)},
            *[{"role": "assistant", "content": ""}, observed] * (TURNS - 1),
        ]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        used[task.id] = len(prompt) + TURNS * PROFILE["root"]["max_tokens"]
    assert {id: tokens for id, tokens in used.items() if tokens > WINDOW} == {}


@pytest.mark.parametrize("lessons", all_lessons(), ids=lambda lessons: lessons.environment)
def test_every_reply_that_is_learned_may_be_given(tokenizer, lessons):
    """None is cut off where the policy writes it."""
    tasks = make_environment(lessons, 0).tasks("train").take(TASKS)
    plans = [lessons.plan(task, name, random.Random(0)) for task in tasks for name in lessons.strategies]
    replies = [reply for plan in plans for reply in (*plan.replies, plan.fallback) if isinstance(reply, str)]
    assert max(len(ids) for ids in tokenizer(replies).input_ids) < PROFILE["root"]["max_tokens"]
