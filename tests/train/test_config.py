"""Configuration of samples, advantages and loss; and that none of it needs torch."""

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from rlm_env.runs.config import merge
from rlm_env.runs.errors import explain_validation
from rlm_env.train.learner.config import PRESETS, LossConfig, SamplesConfig
from rlm_env.train.rl.advantage import AdvantageConfig
from rlm_env.train.rl.config import TrainConfig

COSTS = {"advantage": {"cost_weight": 0.1}}
TEACHER = {"model": "teacher"}
WITHOUT_EFFECT = [  # the settings, what is said of them, and a change with which they have an effect
    (
        {"loss": {"preset": "gspo", "norm": "token"}},
        r'one ratio per sequence; loss\.norm = "token" would weigh it by its length',
        {"loss": {"preset": "gspo", "norm": "sequence"}},
    ),
    (
        {"loss": {"preset": "gspo", "norm": "constant", "norm_tokens": 100}},
        r'one ratio per sequence; loss\.norm = "constant" would weigh it by its length',
        {"loss": {"preset": "dr_grpo", "norm_tokens": 100}},
    ),
    ({"loss": {"norm_tokens": 100}}, "norm_tokens has no effect with norm 'token'", {"loss": {"norm": "constant"}}),
    ({"loss": {"kl_estimator": "k3"}}, "no effect without kl_weight", {"loss": {"kl_estimator": "k3", "kl_weight": 1}}),
    (
        {"loss": {"preset": "cispo", "ratio_cap": 9.0}},
        "ratio_cap has no effect with preset 'cispo'",
        {"loss": {"preset": "cispo", "ratio_cap": 9.0, "kl_weight": 0.1}},
    ),
    (
        {"samples": {"max_sub_calls": 8, "train_sub_calls": False}},
        "samples: max_sub_calls has no effect with train_sub_calls = false",
        {"samples": {"train_sub_calls": True}},
    ),
    (
        {"samples": {"sub_weight": 0.5, "train_sub_calls": False}},
        "samples: sub_weight has no effect with train_sub_calls = false",
        {"samples": {"train_sub_calls": True}},
    ),
    (
        {"samples": {"sub_weight": 0.5, "train_root": False}},
        r"samples\.sub_weight has no effect with samples\.train_root = false",
        {"samples": {"train_root": True}},
    ),
    ({"groups": {"cost": "tokens"}}, r"groups\.cost = \"tokens\" has no effect without advantage\.cost_weight", COSTS),
    (
        {**COSTS, "rollout": {"max_sub_calls": 0}},
        r"advantage\.cost_weight has no effect with rollout\.max_sub_calls = 0",
        {"groups": {"cost": "tokens"}},
    ),
    (
        {**COSTS, "teacher": TEACHER},
        r"\[advantage\] has no effect with teacher\.reward_weight = 0",
        {"teacher": {**TEACHER, "reward_weight": 0.5}},
    ),
    (
        {"trainer": {"packing": "tree", "attention": "sdpa"}},
        'packing = "tree" needs attention = "auto"',
        {"trainer": {"packing": "auto"}},
    ),
    ({"sync": {"address": "10.0.0.1"}}, r"sync\.address has no effect", {"sync": {"method": "nccl"}}),
    ({"sync": {"drain_seconds": 9}}, r"sync\.drain_seconds has no effect", {"sync": {"in_flight": "drain"}}),
    ({"sync": {"method": "lora"}}, r"needs trainer\.lora", {"trainer": {"lora": {}}}),
    (
        {"optimizer": {"final_fraction": 0.1}},
        r"optimizer\.final_fraction has no effect",
        {"optimizer": {"schedule": "linear"}},
    ),
]


@pytest.mark.parametrize(("settings", "message", "change"), WITHOUT_EFFECT, ids=str)
def test_what_has_no_effect_on_a_run_is_refused(settings, message, change):
    values = {"model": "m", "out": "o", "environments": [{"name": "a"}], **settings}
    with pytest.raises(ValidationError) as refused:
        TrainConfig.model_validate(values)
    assert re.search(message, explain_validation(refused.value, TrainConfig, ""))
    TrainConfig.model_validate(merge(values, change))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_its_settings_and_only_those(preset):
    config = LossConfig(preset=preset)
    values = config.model_dump(exclude_none=True)
    assert values == {"preset": preset, **PRESETS[preset]}
    assert LossConfig(**config.model_dump()) == config  # what is recorded can be read back


def test_the_default_is_prime():
    config = LossConfig()
    assert (config.preset, config.dppo_mask_low, config.dppo_mask_high, config.kl_tau) == ("prime", 0.2, 0.2, 1e-3)
    assert config.norm == "token"


def test_explicit_settings_override_the_preset():
    config = LossConfig(preset="dapo", clip_high=0.5, kl_tau=0.01, norm="sequence")
    assert (config.clip_low, config.clip_high, config.kl_tau, config.norm) == (0.2, 0.5, 0.01, "sequence")
    assert LossConfig(preset="dapo", kl_tau=0).kl_tau == 0


@pytest.mark.parametrize(
    ("preset", "setting"),
    [("prime", {"clip_low": 0.1}), ("dapo", {"dppo_mask_low": 0.2}), ("gspo", {"max_ratio": 2.0})],
)
def test_a_setting_without_effect_is_refused(preset, setting):
    (name,) = setting
    with pytest.raises(ValidationError, match=f"{name} has no effect with preset '{preset}'"):
        LossConfig(preset=preset, **setting)


def test_norm_tokens_belongs_to_the_constant():
    assert LossConfig(preset="dr_grpo", norm_tokens=512).norm_tokens == 512
    with pytest.raises(ValidationError, match="norm_tokens has no effect with norm 'token'"):
        LossConfig(norm_tokens=512)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LossConfig, {"presett": "prime"}),
        (LossConfig, {"preset": "ppo"}),
        (LossConfig, {"preset": ["prime"]}),
        (LossConfig, {"norm": "batch"}),
        (LossConfig, {"kl_tau": -1}),
        (AdvantageConfig, {"mode": "gae"}),
        (AdvantageConfig, {"cost_weight": 1.0}),
        (SamplesConfig, {"sub_weight": 0.0}),
        (SamplesConfig, {"train_subs": True}),
    ],
)
def test_unknown_keys_and_values_are_refused(kind, settings):
    with pytest.raises(ValidationError):
        kind(**settings)


def test_importing_the_package_does_not_import_torch():
    modules = "rlm_env, rlm_env.train.learner.config, rlm_env.train.learner.samples, rlm_env.train.rl.advantage"
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
