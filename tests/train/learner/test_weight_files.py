"""Weights by their names in the model, from files that name and cut them otherwise."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from rlm_env.train.learner.config import LoraConfig, ModelConfig, ModelError  # noqa: E402
from rlm_env.train.learner.loading import empty_model, fill  # noqa: E402
from rlm_env.train.learner.model import load_model  # noqa: E402
from rlm_env.train.learner.weight_files import WeightFiles  # noqa: E402
from tests.packages import needs  # noqa: E402

SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
ARCHITECTURES = {
    "Qwen3": {},
    "Gemma3Text": {},  # the head is tied to the embeddings
    "Qwen3Moe": {**EXPERTS, "num_experts": 4},
    "Mixtral": {"num_local_experts": 12},  # 12, since 10 is after 2 as a number, and before it as text
    "Glm4Moe": {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "GptOss": {"num_local_experts": 4},  # stacked in the files too
    "HrmText": {},  # its files join what the model has as several matrices
}


def made(name, folder):
    """A random model, saved to a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**SMALL, **HEADS, **ARCHITECTURES[name])
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    with torch.device("meta"):
        return model.state_dict(), transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_tensor_and_rows_of_it_are_read_as_transformers_saved_them(name, tmp_path):
    state, empty = made(name, tmp_path)
    files = WeightFiles(tmp_path, empty)
    read = [key for key in state if key in files]
    assert set(state) - set(read) <= {"lm_head.weight"}  # tied
    for key in read:
        assert torch.equal(files.read(key), state[key]), key
        assert torch.equal(files.read(key, slice(1, 3)), state[key][1:3]), key


@pytest.mark.parametrize("name", ["Qwen3Moe", "Mixtral"])
def test_of_stacked_experts_only_those_asked_for_are_read(name, tmp_path, monkeypatch):
    state, empty = made(name, tmp_path)
    stored, sizes = WeightFiles.read_as_stored, []

    def counted(self, key, rows=None):
        sizes.append((found := stored(self, key, rows)).numel())
        return found

    monkeypatch.setattr(WeightFiles, "read_as_stored", counted)
    files = WeightFiles(tmp_path, empty)
    for key in (key for key in state if key.endswith(("gate_up_proj", "down_proj"))):
        sizes.clear()
        found = files.read(key, slice(1, 2))
        assert sum(sizes) == found.numel() == state[key][0].numel()


@pytest.mark.parametrize(
    ("name", "key", "problem"),
    [
        ("Qwen3", "model.norm.weight", r"lacks 1 of the model's weights, such as model\.norm\.weight"),
        ("Qwen3Moe", "model.layers.1.mlp.experts.3.down_proj.weight", r"has .*down_proj in the shape \[3, .*in \[4, "),
    ],
)
def test_files_that_lack_a_weight_are_refused(name, key, problem, tmp_path):
    made(name, tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    kept.pop(key)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    model = empty_model(tmp_path, ModelConfig(dtype="float32"), 0)
    with pytest.raises(ModelError, match=problem):
        fill(model, tmp_path, ModelConfig(dtype="float32"), torch.device("cpu"), 0)


@pytest.mark.parametrize("name", ["Qwen3Moe", "Glm4Moe"])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_an_empty_model_is_filled_with_what_one_process_loads(name, lora, tmp_path):
    if lora:
        needs("peft")
    made(name, tmp_path)
    config = ModelConfig(dtype="float32", lora=lora)
    model = empty_model(tmp_path, config, 0)
    fill(model, tmp_path, config, torch.device("cpu"), 0)
    expected = load_model(tmp_path, config, 0).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
