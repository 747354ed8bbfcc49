"""The learner: steps that learn, packs that do not matter, adapters, exports that transformers loads, refusals."""

import contextlib
import copy
import json
import math
import shutil

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402

from rlm_env.train.learner import distributed, memory  # noqa: E402
from rlm_env.train.learner.adapter import unwrapped_name  # noqa: E402
from rlm_env.train.learner.config import (  # noqa: E402
    LoraConfig,
    LossConfig,
    ModelConfig,
    ModelError,
    OptimizerConfig,
)
from rlm_env.train.learner.cost import peak_flops  # noqa: E402
from rlm_env.train.learner.forward import pack_logprobs  # noqa: E402
from rlm_env.train.learner.learner import Learner  # noqa: E402
from rlm_env.train.learner.loss import loss_denominator, policy_loss  # noqa: E402
from rlm_env.train.learner.memory import GIB, training_memory  # noqa: E402
from rlm_env.train.learner.model import load_model, read_model_config  # noqa: E402
from rlm_env.train.learner.packing import collate  # noqa: E402
from rlm_env.train.learner.packing_check import PackingError  # noqa: E402
from rlm_env.train.learner.samples import Sample, SampleKind  # noqa: E402
from rlm_env.train.learner.step_metrics import performance  # noqa: E402
from tests.packages import needs  # noqa: E402
from tests.tiny_model import make_tokenizer  # noqa: E402

needs("peft")

VOCAB = 97
FLOAT32 = ModelConfig(dtype="float32", device="cpu", pack_tokens=200)


@pytest.fixture(scope="module")
def folder(make_qwen3, tmp_path_factory):
    """A tiny model with tied weights, its tokenizer and its profile."""
    path = tmp_path_factory.mktemp("model")
    make_qwen3(tie_word_embeddings=True, attention_dropout=0.1).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    (path / "rlm_env.json").write_text('{"max_turns": 3}')
    (path / "README.md").write_text("about other weights")
    return path


def learner(folder, model=FLOAT32, loss=None, steps=10, **optimizer):
    return Learner(folder, model, OptimizerConfig(**{"lr": 1e-3, **optimizer}), loss or LossConfig(), steps)


def with_(**changes):
    return ModelConfig(**{**FLOAT32.model_dump(exclude_none=True), **changes})


def make_samples(count=8, seed=0, temperature=0.7):
    """Ragged samples of both kinds with gaps in their masks; behavior is somebody else's."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(count):
        size = int(torch.randint(4, 40, (1,), generator=generator))
        ids = torch.randint(0, VOCAB, (size,), generator=generator).tolist()
        mask = [False, *(torch.rand(size - 2, generator=generator) < 0.7).tolist(), True]
        logprobs = (-4 - torch.rand(size, generator=generator)).tolist()
        samples.append(
            Sample(
                ids,
                mask,
                [value if trained else 0.0 for value, trained in zip(logprobs, mask, strict=True)],
                f"r{index // 2}",
                kind=SampleKind.SUB if index % 2 else SampleKind.ROOT,
                weight=0.5 if index % 2 else 1.0,
                temperature=temperature,
                advantage=(-1.0) ** (index // 2),
            )
        )
    return samples


def on_policy(found, samples):
    for sample, logprobs in zip(samples, found.score(samples), strict=True):
        values = iter(logprobs)
        sample.behavior_logprobs = [next(values) if trained else 0.0 for trained in sample.mask]
    return samples


def gradients(found, samples):
    """Those of a step, which is not taken."""
    seen = {}
    step = found.optimizer.step

    def look(number):
        seen.update({name: master.grad.clone() for name, master in found.optimizer.masters.items()})
        return step(number)

    found.optimizer.step = look
    metrics = found.step(samples)
    return metrics, seen


def distance(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max((ours[n] - theirs[n]).norm().item() / max(theirs[n].norm().item(), 1e-12) for n in theirs)


def test_a_step_is_the_gradient_of_the_loss_over_all_samples(folder):
    samples = make_samples()
    metrics, ours = gradients(learner(folder), samples)
    model = load_model(folder, FLOAT32)
    total = 0.0
    for sample in samples:
        pack = collate([sample])
        found = pack_logprobs(model, pack, sample.temperature)
        advantages = pack.spread([sample.advantage])
        loss, _ = policy_loss(found.logprobs, pack.behavior_logprobs, advantages, pack.mask, None, None, pack.weights)
        total = total + loss / loss_denominator(samples)
    total.backward()
    theirs = {f"model.{name}": parameter.grad for name, parameter in model.named_parameters()}
    assert metrics["loss"] == pytest.approx(total.item(), rel=1e-5)
    assert distance(ours, theirs) < 1e-5
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in theirs.values()))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("preset", ["prime", "gspo"])
def test_neither_packs_nor_gradient_checkpointing_change_gradients(folder, preset):
    samples, loss = make_samples(), LossConfig(preset=preset)
    whole, expected = gradients(learner(folder, with_(pack_tokens=1000), loss), samples)
    assert whole["packs"] == 1
    for settings in ({"pack_tokens": 110}, {"pack_tokens": 50}, {"gradient_checkpointing": True}):
        metrics, found = gradients(learner(folder, with_(**settings), loss), samples)
        assert metrics["packs"] > 1 or "pack_tokens" not in settings
        assert distance(found, expected) < 1e-5
        assert metrics["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert metrics["mismatch_kl"] == pytest.approx(whole["mismatch_kl"], rel=1e-5)


@pytest.mark.slow
def make_group(count=6, prompt=30):
    """Samples that begin alike; the last two are one and the same."""
    samples = make_samples(count)
    for sample in samples:
        keep = max(1, sample.mask.index(True))
        common = [(7 * place) % VOCAB for place in range(prompt)]
        sample.token_ids = common + sample.token_ids[keep:]
        sample.mask = [False] * prompt + sample.mask[keep:]
        sample.behavior_logprobs = [0.0] * prompt + sample.behavior_logprobs[keep:]
    return [*samples, copy.copy(samples[-1])]


@pytest.mark.parametrize(
    "settings",
    [{}, {"pack_tokens": 80}, {"gradient_checkpointing": True}, {"lora": LoraConfig(rank=4)}],
    ids=lambda settings: next(iter(settings), "plain"),
)
@pytest.mark.parametrize("preset", ["prime", "gspo"])
def test_trees_change_neither_gradients_nor_scores_nor_metrics(folder, preset, settings):
    samples, loss = make_group(), LossConfig(preset=preset)
    flat, tree = (learner(folder, with_(**{"packing": way, **settings}), loss) for way in (True, "tree"))
    assert flatten(tree.score(samples)) == pytest.approx(flatten(flat.score(samples)), abs=1e-5)
    expected, right = gradients(flat, samples)
    metrics, found = gradients(tree, samples)
    assert distance(found, right) < 1e-5
    layout = ("packs", "tokens_computed", "tree_token_share")
    for name in expected:
        if not name.startswith(("seconds/", "perf/", *layout)):
            assert metrics[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert expected["tokens_computed"] == expected["tokens"] == metrics["tokens"]
    assert metrics["tree_token_share"] == metrics["tokens_computed"] / metrics["tokens"] < 0.75
    assert expected["tree_token_share"] == 1


def test_auto_takes_trees_for_samples_that_share_much(folder):
    for samples, share in ((make_group(), True), (make_samples(), False)):
        assert (learner(folder).step(samples)["tree_token_share"] < 0.8) == share
        assert learner(folder, with_(packing=True)).step(samples)["tree_token_share"] == 1


def test_a_hybrid_is_refused_as_a_tree(other_model):
    with pytest.raises(PackingError, match=r"Qwen3_5ForCausalLM cannot be trained on trees.*packing = \"auto\""):
        learner(other_model("Qwen3_5Text"), with_(packing="tree"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled_layers_give_the_same_gradients_for_packs_of_any_length(folder):
    still = {"lr": 1e-12}
    plain = learner(folder, **still)
    compiled = learner(folder, with_(compile=True, gradient_checkpointing=True), **still)
    counters = torch._dynamo.utils.counters
    counters.clear()
    for seed, count in enumerate((8, 3, 5)):
        samples = make_samples(count, seed=seed)
        assert distance(gradients(compiled, samples)[1], gradients(plain, samples)[1]) < 1e-5
    assert 0 < counters["stats"]["unique_graphs"] <= 12  # a set for all layers and lengths, not one for each


@pytest.mark.parametrize("model", [FLOAT32, with_(dtype="bfloat16"), with_(lora=LoraConfig(rank=4))])
def test_it_learns_what_is_rewarded(folder, model):
    found = learner(folder, model, lr=1e-2)
    samples = on_policy(found, make_samples())
    before = found.score(samples)
    metrics = [found.step(samples) for _ in range(4)]
    after = found.score(samples)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert found.version == 4
    moved = [sample.advantage * (sum(a) - sum(b)) for sample, a, b in zip(samples, after, before, strict=True)]
    assert min(moved) > 0


def test_on_policy_ratios_are_1_and_metrics_split_by_kind(folder):
    found = learner(folder)
    samples = on_policy(found, make_samples())
    metrics = found.step(samples)
    assert metrics["ratio"] == pytest.approx(1, abs=1e-5)
    assert metrics["log_ratio_abs"] < 1e-5
    assert metrics["clipped"] == metrics["skipped"] == 0
    of_kind = {kind: sum(sample.trained_tokens for sample in samples if sample.kind == kind) for kind in SampleKind}
    assert {kind: metrics[f"{kind}/trained_tokens"] for kind in SampleKind} == of_kind
    assert metrics["trained_tokens"] == sum(of_kind.values())
    mean = sum(metrics[f"{kind}/entropy"] * tokens for kind, tokens in of_kind.items()) / metrics["trained_tokens"]
    assert 0 < metrics["entropy"] == pytest.approx(mean)
    assert metrics["tokens"] == sum(map(len, samples))


def test_scores_are_those_of_the_model_in_the_order_of_the_samples(folder):
    samples = make_samples(5)
    samples.append(samples[0])  # the same object twice
    found = learner(folder).score(samples)
    model = load_model(folder, FLOAT32)
    for sample, logprobs in zip(samples, found, strict=True):
        logits = model(input_ids=torch.tensor([sample.token_ids])).logits[0] / sample.temperature
        expected = torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(sample.token_ids)[1:, None])[:, 0]
        assert logprobs == pytest.approx(expected[torch.tensor(sample.mask[1:])].tolist(), abs=1e-5)


def test_each_sample_has_a_temperature_of_its_own(folder):
    found = learner(folder)
    cold, hot = make_samples(1, temperature=0.5), make_samples(1, temperature=2.0)
    for together, alone in zip(found.score(cold + hot), [*found.score(cold), *found.score(hot)], strict=True):
        assert together == pytest.approx(alone, abs=1e-5)
    assert found.score(cold) != found.score(hot)


def test_samples_without_advantage_are_left_out_where_they_change_nothing(folder):
    samples = make_samples()
    for sample in samples[:4]:
        sample.advantage = 0.0
    some, few = gradients(learner(folder, loss=LossConfig(preset="dapo")), samples)
    every, all_of_them = gradients(learner(folder, loss=LossConfig(preset="dapo", kl_tau=1e-30)), samples)
    assert (some["samples"], every["samples"]) == (4, 8)
    assert distance(few, all_of_them) < 1e-5
    nothing = learner(folder, loss=LossConfig(preset="dapo"))
    before = weights(nothing)
    metrics = nothing.step(samples[:4])
    assert (metrics["samples"], metrics["grad_norm"], metrics["loss"], nothing.version) == (0, 0, 0, 1)
    assert_equal(weights(nothing), before)


def test_a_gradient_that_is_not_finite_is_not_applied(folder):
    found, twin = learner(folder), learner(folder)
    samples = make_samples(4)
    found.step(samples), twin.step(samples)
    before = {name: value.clone() for name, value in found.optimizer.state().items()}
    broken = make_samples(4)
    broken[0].behavior_logprobs = [-math.inf if trained else 0.0 for trained in broken[0].mask]
    metrics = found.step(broken)
    assert metrics["skipped"] == 1
    assert not math.isfinite(metrics["grad_norm"])
    assert found.version == 2
    assert_equal(found.optimizer.state(), before)
    twin.version = 2
    assert found.step(samples)["skipped"] == 0
    twin.step(samples)
    assert_equal(weights(found), weights(twin))


def test_samples_that_cannot_be_trained_are_named(folder):
    found = learner(folder)
    before = weights(found)
    foreign, long = make_samples(1), make_samples(1)
    foreign[0].token_ids[1] = VOCAB
    long[0].token_ids, long[0].mask = [0] * 201, [False] + [True] * 200
    for samples, message in (
        (foreign, "'r0' has token ids outside of the model's vocabulary of 97"),
        (long, "'r0' has 201"),
    ):
        with pytest.raises(ValueError, match=message):
            found.step(samples)
    assert found.version == 0
    assert_equal(weights(found), before)


def weights(found):
    return {name: parameter.detach().clone() for name, parameter in found.model.named_parameters()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_is_a_model_folder_with_the_trained_weights(folder, dtype, tmp_path):
    found = learner(folder, with_(dtype=dtype), lr=1e-2)
    samples = make_samples()
    found.step(samples)
    for _ in range(2):  # the second replaces the first
        found.export(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "rlm_env.json"} <= names
    assert "README.md" not in names
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["dtype"], config["tie_word_embeddings"]) == (dtype, True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert_equal(dict(model.named_parameters()), weights(found))
    assert learner(tmp_path / "out", with_(dtype=dtype)).score(samples) == found.score(samples)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "out")


def tensor_names(folder):
    names = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as tensors:
            names |= set(tensors.keys())
    return names


SMALL = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
ARCHITECTURES = {
    "Qwen3": {},
    "Qwen3Moe": {**EXPERTS, "num_experts": 4},
    # Its routing bias is a buffer, not a parameter.
    "Glm4Moe": {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    # Half of its layers are linear attention, whose state would leak over a pack.
    "Qwen3_5Text": {**LINEAR, "layer_types": ["linear_attention", "full_attention"]},
}


@pytest.fixture
def other_model(tmp_path):
    """Makes a folder with a random model of another architecture."""

    def make(name):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = getattr(transformers, f"{name}Config")(**SMALL, **HEADS, **ARCHITECTURES[name])
            model = transformers.AutoModelForCausalLM.from_config(config)
            for buffer_name, buffer in model.named_buffers():
                if buffer_name.endswith("bias"):
                    buffer.copy_(torch.randn(buffer.shape))
        model.save_pretrained(tmp_path / "source")
        return tmp_path / "source"

    return make


@pytest.mark.filterwarnings("ignore:.*one sample at a time")
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_an_export_has_every_tensor_of_its_source_and_is_the_same_model(other_model, name, dtype, tmp_path):
    source = other_model(name)
    found = learner(source, with_(dtype=dtype), lr=1e-2)
    found.step(make_samples())
    found.export(tmp_path / "out")
    assert tensor_names(tmp_path / "out") == tensor_names(source)
    again = learner(tmp_path / "out", with_(dtype=dtype))
    assert again.score(make_samples()) == found.score(make_samples())
    buffers = {name: dict(model.model.named_buffers()) for name, model in (("source", found), ("out", again))}
    assert_equal(buffers["out"], buffers["source"])


def test_a_model_whose_state_leaks_is_trained_one_sample_at_a_time(other_model):
    """The gradient is that of its samples alone, also with recomputation."""
    source, samples = other_model("Qwen3_5Text"), make_samples(4)
    with pytest.warns(UserWarning, match="one sample at a time"):
        found = learner(source, with_(gradient_checkpointing=True))
    assert found.step(samples)["packs"] == 4
    one_by_one, expected = gradients(learner(source, with_(packing=False)), samples)
    assert one_by_one["packs"] == 4
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    total = torch.zeros(())
    for sample in samples:
        pack = collate([sample])
        ids = torch.tensor(sample.token_ids)
        logits = model(ids[None]).logits[0, :-1] / sample.temperature
        chosen = torch.log_softmax(logits, -1).gather(1, ids[1:, None])[:, 0]
        logprobs = torch.cat([torch.zeros(1), chosen])
        advantages = pack.spread([sample.advantage])
        loss, _ = policy_loss(logprobs, pack.behavior_logprobs, advantages, pack.mask, None, None, pack.weights)
        total = total + loss / loss_denominator(samples)
    total.backward()
    plain = {f"model.{name}": parameter.grad for name, parameter in model.named_parameters()}
    assert distance(expected, plain) < 1e-3  # of the worst tensor, in float32


def test_an_adapter_alone_is_trained_and_merges_into_what_was_trained(folder, tmp_path):
    import peft

    found = learner(folder, with_(lora=LoraConfig(rank=4, alpha=8)), lr=1e-2)
    samples = make_samples()
    plain = learner(folder).score(samples)
    assert found.score(samples)[0] == pytest.approx(plain[0], abs=1e-6)  # nothing is changed by a fresh one
    before = weights(found)
    for _ in range(3):
        found.step(samples)
    changed = {name for name, weight in weights(found).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".lora_" in name}
    assert len(changed) == 2 * 2 * 7  # A and B of each linear layer, but not of the head

    found.export(tmp_path / "merged")
    found.export_adapter(tmp_path / "adapter")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert distance(dict(merged.named_parameters()), dict(reference.named_parameters())) < 1e-6
    for ours, theirs in zip(learner(tmp_path / "merged").score(samples), found.score(samples), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    with pytest.raises(ValueError, match=r"trainer\.lora is not set"):
        learner(folder).export_adapter(tmp_path / "none")


def test_named_targets_get_adapters_and_unknown_ones_are_refused(folder):
    found = learner(folder, with_(lora=LoraConfig(targets=("q_proj", "v_proj"))))
    trained = {name.split(".lora_")[0].rpartition(".")[2] for name in found.optimizer.masters}
    assert trained == {"q_proj", "v_proj"}
    for target, message in (
        ("query", "there is no query; known are down_proj, gate_proj, k_proj"),
        ("lm_head", "keep adapters off the head"),
        ("q_norm", "q_norm is a Qwen3RMSNorm, which gets no adapter"),
    ):
        with pytest.raises(ModelError, match=message):
            learner(folder, with_(lora=LoraConfig(targets=(target,))))


@pytest.mark.parametrize("name", ["Qwen3Moe", "Glm4Moe"])
def test_an_adapter_goes_on_stacked_experts_and_merges_into_what_was_trained(other_model, name, tmp_path):
    folder = other_model(name)
    settings = with_(lora=LoraConfig(rank=3), gradient_checkpointing=True)
    found = learner(folder, settings, lr=1e-2)
    trained = {unwrapped_name(name).split(".lora_")[0] for name in found.optimizer.masters}
    assert any(name.endswith("layers.1.mlp.experts") for name in trained)
    assert not any(name.endswith(("mlp.gate", "lm_head")) for name in trained)
    if name == "Glm4Moe":  # a dense layer and a shared expert, whose names its routed experts once had too
        assert any(name.endswith("layers.0.mlp.gate_proj") for name in trained)
        assert any(name.endswith("shared_experts.up_proj") for name in trained)
    samples = make_samples()
    before = found.score(samples)
    assert flatten(before) == pytest.approx(flatten(learner(folder).score(samples)), abs=1e-5)
    plain = {
        name: grad for name, grad in gradients(learner(folder, with_(lora=LoraConfig(rank=3))), samples)[1].items()
    }
    metrics, kept = gradients(found, samples)
    assert distance(kept, plain) < 1e-4
    assert all(kept[name].abs().sum() > 0 for name in kept if ".lora_B." in name)
    assert metrics["skipped"] == 0
    found.step(samples)
    found.export(tmp_path / "out")
    assert tensor_names(tmp_path / "out") == tensor_names(folder)
    after = found.score(samples)
    assert max(abs(a - b) for a, b in zip(flatten(after), flatten(before), strict=True)) > 0.01
    assert flatten(learner(tmp_path / "out").score(samples)) == pytest.approx(flatten(after), abs=1e-4)
    need = training_memory(read_model_config(folder), settings)
    assert need.gradients == 4 * sum(master.numel() for master in found.optimizer.masters.values())


def flatten(scores):
    return [value for values in scores for value in values]


@pytest.mark.parametrize("name", ["sdpaa", "flash_attention_2"])
def test_an_attention_that_is_not_there_is_refused(folder, name):
    with pytest.raises(ModelError, match=rf"trainer\.attention = '{name}'"):
        learner(folder, with_(attention=name))


def test_dropout_is_off(folder):
    assert json.loads((folder / "config.json").read_text())["attention_dropout"] == 0.1
    found = learner(folder)
    assert found.model.config.attention_dropout == 0
    assert found.score(make_samples()) == found.score(make_samples())


def test_a_model_over_the_memory_at_hand_is_refused_before_it_is_loaded(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 100}
    config["layer_types"] = ["full_attention"] * 100
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"needs about [\d.]+ GiB on cpu \(weights .* are free; try .*trainer\.lora"):
        learner(tmp_path)


def test_of_several_processes_none_loads_what_it_does_not_train(folder, tmp_path, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 100}
    config["layer_types"] = ["full_attention"] * 100
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(distributed, "world_size", lambda: 64)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(memory, "available_memory", lambda device: 8 * GIB)
    settings = with_(gradient_checkpointing=True)
    need = memory.require_memory(tmp_path, settings, torch.device("cpu"))
    whole = training_memory(read_model_config(tmp_path), settings).loading
    assert whole > 4 * GIB
    assert need.loading < whole / 50  # one layer of 100, and the embeddings
    assert need.total < GIB


def test_of_several_processes_none_loads_experts_that_it_does_not_train(other_model):
    config = read_model_config(other_model("Qwen3Moe"))
    config.num_experts, config.num_hidden_layers = 10**5, 100
    alone, first = (training_memory(config, FLOAT32, processes).loading for processes in (1, 2))
    assert first < alone / 50  # one layer of 100


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4), LoraConfig(rank=3, targets=("q_proj", "down_proj"))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_memory_of_weights_gradients_and_moments_is_exact(folder, lora, dtype):
    settings = with_(dtype=dtype, lora=lora)
    need = training_memory(read_model_config(folder), settings)
    found = learner(folder, settings)
    tensors = {id(t): t for t in [*found.model.parameters(), *found.optimizer.masters.values()]}
    trained = sum(master.numel() for master in found.optimizer.masters.values())
    assert need.weights == sum(t.numel() * t.element_size() for t in tensors.values())
    assert need.gradients == 4 * trained
    assert need.moments == 8 * trained
    assert need.loading == sum(t.numel() * t.element_size() for t in load_model(folder, settings).parameters())


def test_a_folder_without_a_model_or_without_all_weights_is_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelError, match=r"has no config\.json"):
        learner(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    kept = load_file(folder / "model.safetensors")
    kept.pop("model.norm.weight")
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights, such as model\.norm\.weight"):
        learner(tmp_path)


@pytest.mark.parametrize(
    "loss", [LossConfig(filter_token_ratio=9.0), LossConfig(preset="gspo"), LossConfig(preset="cispo")]
)
@pytest.mark.parametrize("as_tree", [False, True])
def test_no_pack_makes_the_host_wait_for_the_device(folder, loss, as_tree, monkeypatch):
    """On the meta device there are no values: whatever would read one (`item`, `nonzero`, a boolean index) raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # does not know the device
    found = learner(folder, loss=loss)
    samples = make_group() if as_tree else make_samples()
    found.root.to("meta")
    policy = found._policy_part(samples)
    for part in distributed.share(samples, 80, as_trees=as_tree):
        pack = found._collate(part, as_tree=as_tree).to("meta")
        found._pack_loss(pack, found.root(pack), policy).backward()
    assert len(policy.seen._samples) == len(samples)
    assert all(parameter.grad is not None for parameter in found.root.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):
        pack.mask.nonzero()
    with pytest.raises((RuntimeError, NotImplementedError)):
        pack.weights[0].item()


def test_metrics_by_environment_add_up(folder):
    samples = make_samples()
    for index, sample in enumerate(samples):
        sample.label = "math" if index < 6 else "code"
    metrics = learner(folder).step(samples)
    assert metrics["loss/math"] + metrics["loss/code"] == pytest.approx(metrics["loss"])
    tokens = {label: sum(s.trained_tokens for s in samples if s.label == label) for label in ("math", "code")}
    for name in ("entropy", "mismatch_kl"):
        mean = sum(tokens[label] * metrics[f"{name}/{label}"] for label in tokens) / sum(tokens.values())
        assert mean == pytest.approx(metrics[name])
    assert not [name for name in learner(folder).step(make_samples()) if name.startswith("loss/")]


def test_the_largest_and_smallest_ratio_are_those_of_single_tokens(folder):
    samples = make_samples()
    found = learner(folder)
    ratios = torch.tensor(
        [
            value - behavior
            for sample, scores in zip(samples, found.score(samples), strict=True)
            for value, behavior in zip(
                scores, [b for b, own in zip(sample.behavior_logprobs, sample.mask, strict=True) if own], strict=True
            )
        ]
    ).exp()
    metrics = found.step(samples)
    assert metrics["sampling/importance_sampling_ratio/max"] == pytest.approx(ratios.max().item(), rel=1e-4)
    assert metrics["sampling/importance_sampling_ratio/min"] == pytest.approx(ratios.min().item(), rel=1e-4)
    assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(ratios.log().abs().max().item(), rel=1e-4)
    assert metrics["ratio"] == pytest.approx(ratios.mean().item(), rel=1e-4)


def test_the_cost_of_a_sample_is_what_torch_counts(folder):
    """Matrix products and attention of one forward and backward, by torch's own counter, which counts attention as a
    whole square."""
    from torch.utils.flop_counter import FlopCounterMode

    found = learner(folder, with_(attention="eager"))
    sample = make_samples(1)[0]
    with FlopCounterMode(display=False) as counter:
        pack = found._collate([sample])
        found.root(pack).logprobs.sum().backward()
    # It counts the head that is recomputed in the backward, and not the product that is added to a sum in place.
    whole = found.cost.of(sample) + found.cost.square * len(sample) ** 2
    assert counter.get_total_flops() == pytest.approx(whole, rel=0.02)


def test_performance_is_under_prime_rls_names(folder):
    metrics = learner(folder).step(make_samples())
    assert metrics["perf/throughput"] > 0
    assert 0.01 < metrics["perf/peak_memory"] < 64
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("Radeon") is None


def test_the_rate_of_a_card_is_used_in_percent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 2**31)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    found = performance(1000, 989e12, 2.0, torch.device("cuda"))
    assert found == {"perf/throughput": 500.0, "perf/peak_memory": 2.0, "perf/mfu": 50.0}


def test_norm_by_role_trains_a_root_as_much_as_all_its_sub_calls(folder):
    """The gradient of a rollout with a hundred copies of one sub-call is that with one."""
    root, sub = make_samples(2)
    root.weight = sub.weight = 1.0
    root.rollout_id = sub.rollout_id = "r"
    loss = LossConfig(norm="role", kl_tau=0)
    _, few = gradients(learner(folder, loss=loss), [root, sub])
    _, many = gradients(learner(folder, loss=loss), [root, *(copy.copy(sub) for _ in range(20))])
    assert distance(many, few) < 1e-4
    _, by_token = gradients(learner(folder), [root, *(copy.copy(sub) for _ in range(20))])
    assert distance(by_token, few) > 0.1
