"""Configuration of samples, advantages and loss; and that none of it needs torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from rlm_env.train.learner.config import PRESETS, LossConfig, SamplesConfig
from rlm_env.train.rl.advantage import AdvantageConfig


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
