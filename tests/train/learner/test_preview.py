"""`--dry-run` refuses a model exactly where loading it does, in the same words, from its config.json alone."""

from __future__ import annotations

import re
import shutil

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rlm_env.train.learner import memory  # noqa: E402
from rlm_env.train.learner.config import LossConfig, ModelConfig, ModelError, OptimizerConfig  # noqa: E402
from rlm_env.train.learner.learner import Learner  # noqa: E402
from rlm_env.train.learner.model import check_buildable, read_model_config  # noqa: E402
from rlm_env.train.learner.packing_check import PackingError  # noqa: E402
from rlm_env.train.learner.preview import preview_model  # noqa: E402
from rlm_env.train.learner.small_twin import MOST, NARROWEST, planned_packing, small_twin  # noqa: E402

CONFIG = ModelConfig(dtype="float32", device="cpu", pack_tokens=64)
BASE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
DENSE = {**BASE, "intermediate_size": 64, "num_key_value_heads": 2}
HEADS = {**DENSE, "head_dim": 8}
OF_GPT = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
ROUTED = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
LATENT = {**DENSE, **LATENT, **ROUTED, "num_key_value_heads": 4, "first_k_dense_replace": 1}
CONV = {**DENSE, "layer_types": ["conv", "full_attention"]}
WINDOWS = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
BY_LAYER = {**HEADS, **WINDOWS, "global_head_dim": 16, "hidden_size_per_layer_input": 0}
NEO = {"vocab_size": 97, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]}
CAPPED = {**HEADS, "query_pre_attn_scalar": 8, "final_logit_softcapping": 1.0}
EXACT = None

CASES = {
    "Qwen3": (HEADS, {}, EXACT),
    "Qwen3 as trees": (HEADS, {"packing": "tree"}, EXACT),
    "Qwen3Moe": ({**HEADS, "num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2}, {}, EXACT),
    "Llama": (DENSE, {"lora": {"rank": 2}, "gradient_checkpointing": True}, EXACT),
    "DeepseekV3": (LATENT, {}, EXACT),
    "Gemma4Text": (BY_LAYER, {}, EXACT),
    "GPT2": (OF_GPT, {}, EXACT),
    "Lfm2": (CONV, {}, EXACT),
    "Granite": (DENSE, {}, EXACT),
    "Phi": (DENSE, {}, "its vocabulary head is a Linear with a bias"),
    "GPTJ": ({**OF_GPT, "rotary_dim": 8}, {}, "its vocabulary head is a Linear with a bias"),
    "DeepseekV32": (LATENT, {}, "a forward over a pack fails (TypeError"),
    "Mpt": ({"vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4}, {}, "a pack fails (AttributeError"),
    "Llama4Text": ({**HEADS, "intermediate_size_mlp": 64, "num_local_experts": 2}, {}, "a pack fails (AttributeError"),
    "Bloom": ({"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4}, {}, "affected by later tokens"),
    "Granite, scaled": ({**DENSE, "logits_scaling": 4.0}, {}, "its head is more than one matrix product"),
    "Cohere": (DENSE, {}, "its head is more than one matrix product"),
    "Gemma2": (CAPPED, {}, "caps attention logits"),
    "Gemma2 eager": (CAPPED, {"attention": "eager"}, "its head is more than one matrix product"),
    "GptOss": ({**HEADS, "num_local_experts": 4}, {}, "has attention sinks"),
    "Lfm2 on packs": (CONV, {"packing": True}, "is affected by the samples before it"),
    "Lfm2 as trees": (CONV, {"packing": "tree"}, "trees of samples"),
    "Falcon": (BASE, {}, "code of its own in place of the attention"),
    "GPTNeo": (NEO, {}, "code of its own in place of the attention"),
    "Mamba": ({"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}, {}, "no attribute 'num_attention_heads'"),
    "GPT2 compiled": (OF_GPT, {"compile": True}, "its decoder has no list `layers`"),
    "Qwen3, attention of another name": (HEADS, {"attention": "nonsense"}, "nonsense"),
}


def config_of(name, settings):
    return getattr(transformers, f"{re.split(r'[ ,]', name)[0]}Config")(**settings)


@pytest.fixture(scope="module")
def make_folder(tmp_path_factory):
    """Makes a folder with a random model, and returns it beside one that has its config.json alone."""

    def make(config):
        whole, alone = (tmp_path_factory.mktemp(name) for name in ("whole", "alone"))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(whole)
        shutil.copy(whole / "config.json", alone)
        return whole, alone

    return make


def refusal(action):
    try:
        action()
    except (ModelError, PackingError) as error:
        return re.sub(r"\d\S*", "#", str(error))  # differences and gradients are those of other weights
    return None


@pytest.mark.filterwarnings("ignore:.*one sample at a time")
@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_refuses_exactly_what_loading_refuses(make_folder, name):
    settings, trainer, expected = CASES[name]
    config = CONFIG.model_validate({**CONFIG.model_dump(), **trainer})
    whole, alone = make_folder(config_of(name, settings))

    def look():
        check_buildable(read_model_config(alone), config)
        preview_model(alone, config)

    dry = refusal(look)
    loaded = refusal(lambda: Learner(whole, config, OptimizerConfig(), LossConfig(), total_steps=1))
    if expected is EXACT:
        assert (dry, loaded) == (None, None)
        return
    assert dry is not None
    assert loaded is not None
    assert expected in dry
    assert dry.partition(":")[0] == loaded.partition(":")[0] or expected == "nonsense"
    assert expected in loaded


@pytest.mark.parametrize(
    ("name", "fault"),
    [("Qwen3", None), ("Gemma3Text", None), ("DeepseekV32", "a forward over a pack fails"), ("Phi", "with a bias")],
)
def test_the_sizes_of_real_models_do_not_matter(tmp_path, name, fault):
    config_of(name, {}).save_pretrained(tmp_path)  # 7B parameters and more
    model_config = read_model_config(tmp_path)
    twin = small_twin(model_config, CONFIG)
    assert sum(parameter.numel() for parameter in twin.parameters()) < MOST
    assert twin.config.get_text_config().hidden_size >= NARROWEST
    found = refusal(lambda: planned_packing(model_config, CONFIG, "cuda"))
    assert (found is None) == (fault is None)
    assert fault is None or fault in found


def test_what_cannot_be_told_is_not_refused(tmp_path):
    """Experts of which none is chosen: the architecture itself does not work with these sizes."""
    config_of("DeepseekV2", {**LATENT, "num_experts_per_tok": None}).save_pretrained(tmp_path)
    lines = dict(preview_model(tmp_path, CONFIG))
    assert lines["packs"].startswith("unchecked")
    assert (
        planned_packing(read_model_config(tmp_path), CONFIG.model_copy(update={"attention": "flex_attention"}), "cpu")
        is None
    )


def test_processes_of_one_machine_share_its_memory(tmp_path, monkeypatch):
    config_of("Qwen3", HEADS).save_pretrained(tmp_path)
    need = memory.training_memory(read_model_config(tmp_path), CONFIG)
    monkeypatch.setattr(memory, "available_memory", lambda device: 3 * need.total)
    preview_model(tmp_path, CONFIG)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ModelError, match="are free; try a smaller"):
        preview_model(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("name", "settings", "trainer", "words"),
    [
        ("Qwen3", HEADS, {}, "several samples, as trees where that pays"),
        ("Qwen3", HEADS, {"packing": "tree"}, "trees of samples"),
        ("Qwen3", HEADS, {"attention": "sdpa"}, "several samples"),
        ("Qwen3", HEADS, {"packing": False}, "one sample each"),
        ("Lfm2", CONV, {}, "one sample each: this model's state leaks over a pack"),
    ],
)
def test_what_packs_will_be_is_said(tmp_path, name, settings, trainer, words):
    config_of(name, settings).save_pretrained(tmp_path)
    config = CONFIG.model_copy(update=trainer)
    assert dict(preview_model(tmp_path, config))["packs"] == words
