"""On a CUDA card the learner computes what it computes on the CPU, with both attention kernels."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from rlm_env.train.learner.attention import BY_SAMPLE, LONG, Boundaries, by_sample  # noqa: E402
from rlm_env.train.learner.config import LoraConfig, LossConfig, ModelConfig, OptimizerConfig  # noqa: E402
from rlm_env.train.learner.learner import Learner  # noqa: E402
from rlm_env.train.learner.logprobs import token_logprobs  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
}
BOUNDS = {"float32": 1e-4, "bfloat16": 0.03}
"""Largest relative difference to the CPU in float32."""
WINDOWS = {"sliding_window": 100, "layer_types": ["sliding_attention", "full_attention"]}


@pytest.fixture(scope="module", params=["Qwen3", "Gemma3Text"])
def folder(request, tmp_path_factory):
    settings = WINDOWS if request.param == "Gemma3Text" else {}
    path = tmp_path_factory.mktemp("model") / request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{request.param}Config")(**SHAPE, **settings)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


def make_samples(lengths=(LONG + 300, 700, 130, 64, 17, 3)):
    """One sample above the length from which a kernel is started for it alone."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for index, size in enumerate(lengths):
        ids = torch.randint(0, 512, (size,), generator=generator).tolist()
        mask = [False, *(torch.rand(size - 1, generator=generator) < 0.5).tolist()]
        mask[-1] = True
        logprobs = [-6.0 if trained else 0.0 for trained in mask]
        samples.append(Sample(ids, mask, logprobs, f"r{index}", temperature=0.8, advantage=(-1.0) ** index))
    return samples


def make_learner(folder, device, dtype, **settings):
    config = ModelConfig(dtype=dtype, device=device, pack_tokens=4096, gradient_checkpointing=True, **settings)
    return Learner(folder, config, OptimizerConfig(lr=1e-3), LossConfig(), total_steps=10)


def scores_and_gradient(learner, samples):
    scores = torch.tensor([value for values in learner.score(samples) for value in values])
    kept = []
    step = learner.optimizer.step

    def look(number):
        # Joined here, into a copy: the step scales the gradients in place.
        kept.append(torch.cat([master.grad.float().flatten().cpu() for master in learner.optimizer.masters.values()]))
        return step(number)

    learner.optimizer.step = look
    learner.step(samples)
    return scores, torch.cat(kept)


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("attention", ["auto", "sdpa"])
def test_scores_and_gradients_are_those_of_the_cpu(folder, dtype, attention):
    samples = make_samples()
    expected = scores_and_gradient(make_learner(folder, "cpu", "float32"), samples)
    found = scores_and_gradient(make_learner(folder, "cuda", dtype, attention=attention), samples)
    assert distance(found[0], expected[0]) < BOUNDS[dtype]
    assert distance(found[1], expected[1]) < BOUNDS[dtype]


def test_an_adapter_trains_and_exports(folder, tmp_path):
    learner = make_learner(folder, "cuda", "bfloat16", lora=LoraConfig(rank=4))
    for _ in range(2):
        metrics = learner.step(make_samples())
    assert metrics["skipped"] == 0
    learner.export(tmp_path / "out")
    again = make_learner(tmp_path / "out", "cuda", "bfloat16")
    found, expected = (scores_and_gradient(one, make_samples())[0] for one in (again, learner))
    assert distance(found, expected) < BOUNDS["bfloat16"]


def test_a_model_whose_state_leaks_is_trained_one_sample_at_a_time(tmp_path):
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16}
    config = transformers.Qwen3_5TextConfig(
        **SHAPE, **linear, linear_value_head_dim=16, layer_types=["linear_attention", "full_attention"]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    samples = make_samples((60, 30, 20))
    with pytest.warns(UserWarning, match="one sample at a time"):
        found = scores_and_gradient(make_learner(tmp_path, "cuda", "float32"), samples)
    with pytest.warns(UserWarning, match="one sample at a time"):
        expected = scores_and_gradient(make_learner(tmp_path, "cpu", "float32"), samples)
    assert distance(found[0], expected[0]) < 1e-3
    assert distance(found[1], expected[1]) < 1e-3


def test_attention_never_waits_for_the_card():
    lengths = [LONG + 10, 300, 5]
    q, k, v = (
        torch.randn(1, heads, sum(lengths), 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (4, 2, 2)
    )
    boundaries = Boundaries.of(lengths).to("cuda")
    up = torch.randn(1, sum(lengths), 4, 64, device="cuda", dtype=torch.bfloat16)
    for strict in (False, True):  # the first call may set kernels up
        torch.cuda.set_sync_debug_mode("error" if strict else "default")
        try:
            found, _ = by_sample(torch.nn.Module(), q, k, v, None, boundaries=boundaries)
            torch.autograd.grad(found, (q, k, v), up)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("master", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [7, 100, None])
def test_the_head_sums_its_gradient_in_float32(master, chunk):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 64, generator=generator, dtype=torch.float64).mul(0.5).bfloat16()
    weight = torch.randn(1000, 64, generator=generator, dtype=torch.float64).bfloat16()
    targets = torch.randint(1000, (300,), generator=generator)
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    logprobs = torch.log_softmax(exact[0] @ exact[1].T, -1).gather(1, targets[:, None])[:, 0]
    expected = torch.autograd.grad(logprobs.sum(), exact)
    on_card = [hidden.cuda().requires_grad_(), weight.to("cuda", master).requires_grad_()]
    found = token_logprobs(*on_card, targets.cuda(), 1.0, chunk).logprobs
    assert distance(found.detach().cpu().double(), logprobs.detach()) < 5e-3
    for ours, right in zip(torch.autograd.grad(found.sum(), on_card), expected, strict=True):
        assert distance(ours.cpu().double(), right) < 0.01


def test_the_model_attends_by_sample(folder):
    assert make_learner(folder, "cuda", "bfloat16").model.config._attn_implementation == BY_SAMPLE
