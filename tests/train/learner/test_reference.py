"""The KL term: its formula and gradient in float64, and the reference it compares with, copied or under an adapter."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pydantic import ValidationError  # noqa: E402

from rlm_env.train.learner.config import PRESETS, LoraConfig, LossConfig, ModelConfig  # noqa: E402
from rlm_env.train.learner.loss import policy_loss  # noqa: E402
from rlm_env.train.learner.memory import training_memory  # noqa: E402
from rlm_env.train.learner.model import read_model_config  # noqa: E402
from tests.packages import needs  # noqa: E402
from tests.train.learner.test_learner import (  # noqa: E402
    FLOAT32,
    assert_equal,
    distance,
    gradients,
    learner,
    make_samples,
    on_policy,
    weights,
    with_,
)
from tests.train.learner.test_loss import POLICY_PRESETS, batch, gradient  # noqa: E402

needs("peft")

MODELS = {"copy": FLOAT32, "copy-bfloat16": with_(dtype="bfloat16"), "adapter": with_(lora=LoraConfig(rank=4))}


@pytest.fixture(scope="module")
def folder(make_qwen3, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    make_qwen3(tie_word_embeddings=True).save_pretrained(path)
    return path


@pytest.fixture
def reference():
    generator = torch.Generator().manual_seed(7)
    return -3 * torch.rand(20, generator=generator, dtype=torch.float64) - 0.01


@pytest.mark.parametrize("estimator", ["unbiased", "k3"])
@pytest.mark.parametrize("preset", POLICY_PRESETS)
def test_the_term_and_its_gradient_by_the_formula(preset, estimator, reference):
    logprobs, behavior, advantages, mask, samples = batch()
    settings = {"preset": preset, "norm": "token"}
    config = LossConfig(**settings, kl_weight=0.3, kl_estimator=estimator)
    found, metrics = policy_loss(logprobs, behavior, advantages, mask, config, samples, None, reference)
    plain, _ = policy_loss(logprobs, behavior, advantages, mask, LossConfig(**settings), samples)
    p, q, r = logprobs.detach()[mask], behavior[mask], reference[mask]
    k3 = (r - p).exp() - (r - p) - 1
    ratio = (p - q).exp()
    value, slope = (ratio * k3, ratio * (p - r)) if estimator == "unbiased" else (k3, 1 - (r - p).exp())
    assert (found - plain).item() == pytest.approx(0.3 * value.sum().item(), abs=1e-12)
    added = gradient(found, logprobs) - gradient(plain, logprobs)
    assert torch.allclose(added[mask], 0.3 * slope, atol=1e-12, rtol=0)
    assert (added[~mask] == 0).all()
    assert metrics["kl"].item() == pytest.approx(k3.sum().item(), abs=1e-12)


def test_the_unbiased_estimate_has_the_gradient_of_the_kl_for_samples_of_any_policy():
    """Summed over the whole vocabulary with the probabilities of the policy that sampled: no estimate is left."""
    logits, old, initial = (
        torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in range(3)
    )
    logits.requires_grad_()
    behavior, reference = old.log_softmax(-1), initial.log_softmax(-1)
    policy = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    found = {}
    for estimator in ("unbiased", "k3"):
        config = LossConfig(preset="dapo", kl_weight=1.0, kl_estimator=estimator)
        zero, every = torch.zeros(11, dtype=torch.float64), torch.ones(11, dtype=torch.bool)
        loss, _ = policy_loss(policy, behavior, zero, every, config, None, behavior.exp(), reference)
        (found[estimator],) = torch.autograd.grad(loss, logits, retain_graph=True)
    assert torch.allclose(found["unbiased"], exact, atol=1e-12, rtol=0)
    assert not torch.allclose(found["k3"], exact, atol=1e-2)


def test_a_token_that_the_policy_has_given_up_cannot_make_the_loss_infinite(reference):
    logprobs, behavior, advantages, mask, samples = batch()
    lost = logprobs.detach().clone()
    lost[mask.nonzero()[0]] = -2000.0
    lost.requires_grad_()
    for preset in POLICY_PRESETS:
        config = LossConfig(preset=preset, kl_weight=0.1, kl_tau=0.0, kl_estimator="k3")
        loss, _ = policy_loss(lost, behavior, advantages, mask, config, samples, None, reference)
        assert math.isfinite(loss.item())
        assert gradient(loss, lost).isfinite().all()


@pytest.mark.parametrize("preset", POLICY_PRESETS)
@pytest.mark.parametrize("cap", [1e3, 50.0, 1e30])
def test_one_cap_bounds_both_exponentials(preset, cap):
    """The reference finds the first token e^9 times as likely, and the policy the second e^8 times as likely as the one
    that sampled. TRL caps neither: 1e30."""
    logprobs = torch.tensor([-10.0, -1.0], dtype=torch.float64, requires_grad=True)
    behavior, reference = torch.tensor([[-10.0, -9.0], [-1.0, -2.0]], dtype=torch.float64)
    settings = {"preset": preset, "norm": "token", "kl_weight": 1.0} | ({} if cap == 1e3 else {"ratio_cap": cap})
    config = LossConfig(**settings, **({"kl_tau": 0.0} if preset == "prime" else {}))
    assert config.ratio_cap == cap
    found, _ = policy_loss(logprobs, behavior, 0 * behavior, behavior < 0, config, None, None, reference)
    far, ratio = min(9.0, math.log(cap)), min(math.exp(8.0), cap)
    assert found.item() == pytest.approx(math.exp(far) - far - 1 + ratio * (math.exp(-1.0) + 1.0 - 1), rel=1e-9)


def test_a_filtered_sample_has_no_kl_either(reference):
    logprobs, behavior, advantages, mask, samples = batch()
    config = LossConfig(preset="dapo", kl_weight=0.3, filter_sample_ratio=1 + 1e-9)
    loss, metrics = policy_loss(logprobs, behavior, advantages, mask, config, samples, None, reference)
    assert metrics["filtered"] == metrics["tokens"]
    assert (loss.item(), metrics["kl"].item()) == (0.0, 0.0)
    assert (gradient(loss, logprobs) == 0).all()


def test_settings_that_do_not_fit_are_refused():
    assert LossConfig(kl_weight=0.1).kl_estimator == "unbiased"
    assert LossConfig(**LossConfig(kl_weight=0.1, kl_estimator="k3").model_dump()).kl_estimator == "k3"
    for settings, message in (
        ({"kl_estimator": "k3"}, "kl_estimator has no effect without kl_weight"),
        ({"kl_weight": 0}, "greater than 0"),
        ({"kl_weight": 0.1, "kl_estimator": "k2"}, "'unbiased' or 'k3'"),
        ({"preset": "sft", "kl_weight": 0.1}, "kl_weight has no effect with preset 'sft'"),
        ({"beta": 0.1}, "beta"),
    ):
        with pytest.raises(ValidationError, match=message):
            LossConfig(**settings)
    logprobs, behavior, advantages, mask, samples = batch()
    with pytest.raises(ValueError, match="kl_weight needs the log-probabilities of a reference"):
        policy_loss(logprobs, behavior, advantages, mask, LossConfig(kl_weight=0.1), samples)
    assert all("kl_weight" not in settings for settings in PRESETS.values())


@pytest.mark.parametrize("model", MODELS)
def test_the_reference_is_the_initial_policy_however_far_training_goes(folder, model):
    """At first the term is exactly 0 and has no gradient; then the reference's values are still the initial ones."""
    found = learner(folder, MODELS[model], LossConfig(preset="dapo", kl_weight=0.5), lr=1e-2)
    samples = make_samples()
    initial = found.score(samples)
    for sample in samples:
        sample.advantage = 0.0
    metrics, kept = gradients(found, on_policy(found, samples))
    assert metrics["kl"] == metrics["root/kl"] == metrics["loss"] == 0
    assert all((grad == 0).all() for grad in kept.values())
    assert metrics["samples"] == len(samples)
    samples = make_samples()
    moved = [found.step(samples)["kl"] for _ in range(3)]
    assert 0 < moved[1] < moved[2]
    pack = found._collate(samples[:1])
    again = found.reference.logprobs(pack)[pack.trained].tolist()
    assert again == pytest.approx(initial[0], abs=0.02 if "bfloat16" in model else 1e-5)
    assert found.score(samples)[0] != pytest.approx(initial[0], abs=0.05)


@pytest.mark.parametrize("model", ["copy", "adapter"])
def test_it_keeps_the_policy_near_and_packs_do_not_matter(folder, model):
    samples = make_samples()
    kl = {}
    for weight in (None, 5.0):
        found = learner(folder, MODELS[model], LossConfig(kl_weight=weight), lr=1e-2)
        before = found.score(samples)
        for _ in range(4):
            found.step(samples)
        after = found.score(samples)
        kl[weight] = sum(abs(a - b) for x, y in zip(after, before, strict=True) for a, b in zip(x, y, strict=True))
    assert kl[5.0] < 0.7 * kl[None]
    loss = LossConfig(kl_weight=0.5)
    pairs = []
    for tokens in (1000, 50):
        settings = {**MODELS[model].model_dump(exclude_none=True), "pack_tokens": tokens}
        found = learner(folder, ModelConfig(**settings), loss, lr=1e-2)
        found.step(samples)
        pairs.append(gradients(found, samples))
    (one, expected), (many, again) = pairs
    assert many["packs"] > one["packs"] == 1
    assert distance(again, expected) < 1e-4
    assert many["kl"] == pytest.approx(one["kl"], rel=1e-4)


@pytest.mark.parametrize("model", ["copy", "adapter"])
def test_a_resumed_run_goes_on_to_the_bit(folder, model, tmp_path):
    loss, samples = LossConfig(kl_weight=0.5), make_samples()
    whole = learner(folder, MODELS[model], loss, lr=1e-2)
    whole.step(samples), whole.step(samples)
    whole.save(tmp_path)
    resumed = learner(folder, MODELS[model], loss, lr=1e-2)
    resumed.load(tmp_path)
    ours, theirs = (found.step(samples) for found in (whole, resumed))
    assert [ours[name] for name in ("loss", "kl", "grad_norm")] == [
        theirs[name] for name in ("loss", "kl", "grad_norm")
    ]
    assert_equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("model", MODELS)
def test_the_memory_of_the_reference_is_in_the_estimate(folder, model):
    settings = MODELS[model]
    config = read_model_config(folder)
    need, without = (training_memory(config, settings, reference=on) for on in (True, False))
    found = learner(folder, settings, LossConfig(kl_weight=0.1))
    policy = {id(parameter) for parameter in found.model.parameters()}
    copy = [p for p in found.reference._root.parameters() if id(p) not in policy]
    assert need.reference == sum(p.numel() * p.element_size() for p in copy)
    assert need.total - without.total == need.reference
    assert (need.reference == 0) == (model == "adapter") == ("reference" not in str(need))
    assert not any(p.requires_grad for p in copy)
