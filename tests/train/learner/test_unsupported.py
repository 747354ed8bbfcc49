"""A model that transformers builds otherwise than the learner needs is refused by name, with the remedy."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rlm_env.train.learner.config import LossConfig, ModelConfig, ModelError, OptimizerConfig  # noqa: E402
from rlm_env.train.learner.forward import decoder_layers  # noqa: E402
from rlm_env.train.learner.learner import Learner  # noqa: E402
from rlm_env.train.learner.memory import training_memory  # noqa: E402
from rlm_env.train.learner.model import check_buildable, read_model_config  # noqa: E402
from rlm_env.train.learner.packing_check import PackingError  # noqa: E402

CONFIG = ModelConfig(dtype="float32", device="cpu", pack_tokens=64)
BASE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT_NEO = {"vocab_size": 97, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
EXPERTS = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
EXPERTS["first_k_dense_replace"] = 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Falcon", BASE), ("GPTNeo", {**GPT_NEO, "attention_types": [[["global", "local"], 1]]})],
)
def test_a_model_with_attention_of_its_own_is_refused_before_it_is_loaded(name, settings):
    config = getattr(transformers, f"{name}Config")(**settings)
    with pytest.raises(
        ModelError, match=rf"{config.model_type} has code of its own in place of the attention .*\"eager\""
    ):
        check_buildable(config, CONFIG)


@pytest.mark.parametrize(
    ("name", "settings", "fault"),
    [
        (
            "DeepseekV32",
            {**BASE, **LATENT, **EXPERTS, "intermediate_size": 64, "first_k_dense_replace": 1},
            "TypeError",
        ),
        ("Mpt", {"vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4}, "AttributeError"),
        ("Llama4Text", {**BASE, "head_dim": 8, "num_local_experts": 2, "pad_token_id": 0}, "AttributeError"),
        ("Phi", {**BASE, "intermediate_size": 64}, "its vocabulary head is a Linear with a bias, not one plain matrix"),
    ],
)
def test_a_model_that_takes_no_packs_is_refused_when_it_is_loaded(name, settings, fault, tmp_path):
    if name == "Llama4Text":
        settings = {**settings, "intermediate_size": 64, "intermediate_size_mlp": 64, "num_key_value_heads": 2}
    config = getattr(transformers, f"{name}Config")(**settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        (ModelError, PackingError), match=rf"(?s){name.removesuffix('Text')}\w* cannot be trained: .*{fault}"
    ) as caught:
        Learner(tmp_path, CONFIG, OptimizerConfig(), LossConfig(), total_steps=1)
    assert "train another architecture" in str(caught.value) or "one plain matrix" in str(caught.value)


def test_layers_of_another_name_are_trained_on_one_process_only():
    config = transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    assert training_memory(config, CONFIG).total > 0
    with pytest.raises(ModelError, match="GPT2LMHeadModel: its decoder has no list `layers`"):
        training_memory(config, CONFIG, 2)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen3Config(**BASE, head_dim=8))
    assert len(decoder_layers(model)) == 2


@pytest.mark.parametrize(
    ("name", "settings", "fault"),
    [
        ("Mamba", {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}, "no attribute 'num_attention_heads'"),
        ("T5", {"vocab_size": 97, "d_model": 32, "num_layers": 2}, "Unrecognized configuration class"),
    ],
)
def test_what_is_no_decoder_with_attention_is_refused_with_the_estimate_of_its_memory(name, settings, fault):
    config = getattr(transformers, f"{name}Config")(**settings)
    with pytest.raises(ModelError, match=rf"(?s)(?i){name} cannot be trained: estimating its memory fails .*{fault}"):
        training_memory(config, CONFIG)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "something-new"}'])
def test_a_configuration_that_transformers_does_not_know_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json cannot be used: "):
        read_model_config(tmp_path)
