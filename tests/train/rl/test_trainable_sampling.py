"""Sampling settings that cannot be trained are refused by name; others pass."""

import pytest
from pydantic import ValidationError

from rlm_env.llm.base import Sampling
from rlm_env.runs.errors import ConfigError
from rlm_env.train.rl.trainable_sampling import LOWEST_TEMPERATURE, check_sampling


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"stop_token_ids": [1]},
        {"ignore_eos": True},
        {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0, "frequency_penalty": 0.0},
    ],
)
def test_what_leaves_the_distribution_as_it_is_passes(extra):
    check_sampling(Sampling(temperature=0.7, stop=("END",), extra=extra), "rollout.root")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.5),
        ("top_p", 0.5),
        ("seed", 1),
        ("top_k", 20),
        ("min_p", 0.1),
        ("presence_penalty", 0.5),
        ("structured_outputs", {"regex": "a"}),
        ("guided_regex", "a"),
        ("min_tokens", 5),
        ("logits_processors", ["a"]),
        ("logit_bias", {"1": 5}),
        ("n", 2),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("a_setting_of_next_year", True),
    ],
)
def test_every_other_setting_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"rollout\.sub\.extra\.{name}"):
        check_sampling(Sampling(extra={name: value}), "rollout.sub")


def test_a_seed_would_make_the_rollouts_of_a_group_equal():
    with pytest.raises(ConfigError, match=r"rollout\.root\.seed is set: all rollouts of a group"):
        check_sampling(Sampling(seed=1), "rollout.root")


def test_a_temperature_that_vllm_would_raise_is_refused():
    with pytest.raises(ConfigError, match=r"rollout\.root\.temperature is 1e-09, and vLLM samples at 0\.01 at least"):
        check_sampling(Sampling(temperature=1e-9), "rollout.root")
    check_sampling(Sampling(temperature=LOWEST_TEMPERATURE), "rollout.root")
    with pytest.raises(ValidationError, match="finite number"):
        Sampling(temperature=float("inf"))
