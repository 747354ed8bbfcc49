"""The policy loss: prime-rl's recorded values, every preset by its formula, and what must hold for all of them."""

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rlm_env.train.learner import loss  # noqa: E402
from rlm_env.train.learner.config import PRESETS, LossConfig  # noqa: E402
from rlm_env.train.learner.loss import loss_denominator, policy_loss  # noqa: E402
from rlm_env.train.learner.samples import Sample, SampleKind  # noqa: E402
from tests.train.plain_step import Pipeline  # noqa: E402

POLICY_PRESETS = [preset for preset in PRESETS if preset != "sft"]
ORACLE = Path(__file__).parents[2] / "oracles" / "policy_loss_prime.json"


def batch(lengths=(6, 1, 9, 4), spread=0.8, seed=0):
    """Ragged samples, partly masked, off-policy, advantages of both signs and zero."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    behavior = -3 * torch.rand(tokens, generator=generator, dtype=torch.float64) - 0.01
    logprobs = (behavior + spread * torch.randn(tokens, generator=generator, dtype=torch.float64)).clamp(max=-1e-3)
    samples = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    advantages = torch.tensor([1.5, -0.5, 0.0, -2.0, 0.7], dtype=torch.float64)[: len(lengths)][samples]
    mask = torch.rand(tokens, generator=generator) < 0.7
    mask[torch.tensor(lengths).cumsum(0) - 1] = True  # no sample without a trained token
    return logprobs.requires_grad_(), behavior, advantages, mask, samples


def by_the_formula(logprobs, behavior, advantages, mask, samples, config):
    """Token by token, in the plainest Python."""
    total = 0.0
    for index in range(len(logprobs)):
        if not mask[index]:
            continue
        sample = (samples == samples[index]) & mask
        p, q, advantage = logprobs[index], behavior[index], advantages[index]
        log_ratio = p - q
        if config.preset == "prime":
            moved = (p.exp() - q.exp()).item()
            outside = moved > config.dppo_mask_high if advantage > 0 else moved < -config.dppo_mask_low
            loss = 0.0 if outside else -advantage * log_ratio.exp()
        elif config.preset == "cispo":
            loss = -min(log_ratio.exp().item(), config.max_ratio) * advantage * p
        else:
            x = (logprobs - behavior)[sample].mean() if config.preset == "gspo" else log_ratio
            clipped = x.exp().clamp(1 - config.clip_low, 1 + config.clip_high)
            loss = -torch.min(x.exp() * advantage, clipped * advantage)
        loss = loss + config.kl_tau * log_ratio**2
        total = total + (loss / sample.sum() if config.norm == "sequence" else loss)
    return total


def gradient(loss, logprobs):
    return torch.autograd.grad(loss, logprobs)[0]


def test_prime_equals_prime_rl():
    cases = json.loads(ORACLE.read_text("utf-8"))["cases"]
    assert cases
    for case in cases:
        flat = {
            name: torch.tensor([value for sample in case[name] for value in sample], dtype=dtype)
            for name, dtype in [
                ("logprobs", torch.float64),
                ("behavior_logprobs", torch.float64),
                ("advantages", torch.float64),
                ("mask", torch.bool),
                ("grad", torch.float64),
            ]
        }
        logprobs = flat["logprobs"].requires_grad_()
        config = LossConfig(preset="prime", **case["config"])
        total, metrics = policy_loss(logprobs, flat["behavior_logprobs"], flat["advantages"], flat["mask"], config)
        loss = total / case["token_count"]
        assert abs(loss.item() - case["loss"]) <= 1e-9
        assert (gradient(loss, logprobs) - flat["grad"]).abs().max() <= 1e-9
        assert metrics["tokens"] == case["token_count"]


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
@pytest.mark.parametrize("kl_tau", [0.0, 0.05])
@pytest.mark.parametrize("preset", POLICY_PRESETS)
def test_every_preset_by_its_formula(preset, kl_tau, norm):
    config = LossConfig(preset=preset, kl_tau=kl_tau, norm=norm)
    tensors = batch()
    expected = by_the_formula(*tensors, config)
    found, _ = policy_loss(*tensors[:4], config, tensors[4])
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(gradient(found, tensors[0]), gradient(expected, tensors[0]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("preset", POLICY_PRESETS)
def test_on_policy_the_gradient_is_the_policy_gradient(preset):
    """With a ratio of 1 nothing is clipped, and all presets push each token by its advantage."""
    logprobs, _, advantages, mask, samples = batch()
    total, metrics = policy_loss(
        logprobs, logprobs.detach(), advantages, mask, LossConfig(preset=preset, norm="token"), samples
    )
    assert torch.allclose(gradient(total, logprobs), -advantages * mask)
    assert metrics["clipped"] == 0
    assert metrics["mismatch_kl"] == 0
    assert metrics["ratio"] == metrics["tokens"] == mask.sum()


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_not_trained_is_never_looked_at(preset):
    logprobs, behavior, advantages, mask, samples = batch()
    config = LossConfig(preset=preset)
    expected, _ = policy_loss(logprobs, behavior, advantages, mask, config, samples)
    right = gradient(expected, logprobs)
    for rubbish in (math.nan, math.inf, -math.inf, 1e30):
        dirty = torch.where(mask, logprobs.detach(), rubbish).requires_grad_()
        total, metrics = policy_loss(
            dirty, torch.where(mask, behavior, rubbish), torch.where(mask, advantages, rubbish), mask, config, samples
        )
        assert total == expected
        assert torch.equal(gradient(total, dirty), right)
        assert all(torch.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("norm", ["token", "sequence"])
def test_a_sum_over_packs_is_the_sum_over_all(preset, norm):
    """However the samples are shared out over packs, and in whatever order they stand."""
    logprobs, behavior, advantages, mask, samples = batch(lengths=(6, 1, 9, 4, 5))
    config = LossConfig(preset=preset, norm=norm)
    together, metrics = policy_loss(logprobs, behavior, advantages, mask, config, samples)
    parts = [torch.isin(samples, torch.tensor(group)) for group in ([0, 3], [4], [1, 2])]
    results = [
        policy_loss(logprobs[p].flip(0), behavior[p].flip(0), advantages[p].flip(0), mask[p].flip(0), config, ids)
        for p, ids in ((part, 100 - samples[part].flip(0)) for part in parts)
    ]
    assert torch.allclose(sum(total for total, _ in results), together)
    assert torch.allclose(gradient(sum(total for total, _ in results), logprobs), gradient(together, logprobs))
    for name, value in metrics.items():
        assert torch.allclose(sum(part[name].double() for _, part in results), value.double())


@pytest.mark.parametrize("preset", POLICY_PRESETS)
def test_a_weight_counts_a_sample_that_often(preset):
    logprobs, behavior, advantages, mask, samples = batch()
    config = LossConfig(preset=preset, kl_tau=0.01)
    weights = torch.tensor([1.0, 3.0, 0.5, 2.0])[samples]
    weighted, _ = policy_loss(logprobs, behavior, advantages, mask, config, samples, weights)
    parts = [
        policy_loss(*(t[samples == sample] for t in (logprobs, behavior, advantages, mask)), config)[0]
        for sample in range(4)
    ]
    assert torch.allclose(weighted, 1.0 * parts[0] + 3.0 * parts[1] + 0.5 * parts[2] + 2.0 * parts[3])


@pytest.mark.parametrize("norm", ["token", "sequence"])
def test_sft_is_cross_entropy_whatever_the_engine_said(norm):
    logprobs, behavior, _, mask, samples = batch()
    config = LossConfig(preset="sft", norm=norm)
    sizes = torch.bincount(samples[mask])[samples] if norm == "sequence" else torch.ones(len(samples))
    expected = -(logprobs / sizes)[mask].sum()
    for unknown in (behavior, torch.full_like(behavior, math.nan)):
        found, metrics = policy_loss(logprobs, unknown, torch.zeros_like(behavior), mask, config, samples)
        assert torch.allclose(found, expected)
        assert torch.allclose(gradient(found, logprobs), -(mask / sizes).double())
    assert (metrics["ratio"], metrics["mismatch_kl"], metrics["clipped"]) == (mask.sum(), 0, 0)


def test_dppo_leaves_out_what_has_moved_too_far_in_the_direction_of_its_advantage():
    behavior = torch.log(torch.tensor([0.5, 0.5, 0.5, 0.5]))
    logprobs = torch.log(torch.tensor([0.75, 0.75, 0.25, 0.25])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    total, metrics = policy_loss(logprobs, behavior, advantages, torch.ones(4, dtype=torch.bool), LossConfig(kl_tau=0))
    assert gradient(total, logprobs).tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0])
    assert (metrics["clipped"], metrics["clipped_high"], metrics["clipped_low"]) == (2, 1, 1)


def test_a_ratio_beyond_float32_does_not_poison_the_gradient():
    """A dropped token with an infinite ratio: 0 * inf would be nan."""
    logprobs = torch.tensor([-0.1, -0.5], requires_grad=True)
    behavior = torch.tensor([-200.0, -0.5])
    total, _ = policy_loss(logprobs, behavior, torch.ones(2), torch.ones(2, dtype=torch.bool), LossConfig(kl_tau=0))
    assert gradient(total, logprobs).tolist() == [0.0, -1.0]


def test_clipping_is_counted():
    behavior = torch.zeros(4, dtype=torch.float64) - 1
    logprobs = (behavior + torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5]))).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    mask = torch.ones(4, dtype=torch.bool)
    total, metrics = policy_loss(logprobs, behavior, advantages, mask, LossConfig(preset="dapo"))
    assert gradient(total, logprobs).tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0])
    assert (metrics["clipped"], metrics["clipped_high"], metrics["clipped_low"]) == (2, 1, 1)
    capped, metrics = policy_loss(logprobs, behavior, advantages, mask, LossConfig(preset="cispo", max_ratio=1.2))
    assert gradient(capped, logprobs).tolist() == pytest.approx([-1.2, 1.2, -0.5, 0.5])
    assert metrics["clipped"] == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_a_pack_without_trained_tokens_gives_a_zero_that_can_be_differentiated(preset):
    logprobs, behavior, advantages, mask, samples = batch()
    total, metrics = policy_loss(logprobs, behavior, advantages, mask & False, LossConfig(preset=preset), samples)
    assert total == 0
    assert gradient(total, logprobs).eq(0).all()
    assert metrics["tokens"] == 0


def test_low_precision_is_raised_to_float32():
    logprobs, behavior, advantages, mask, samples = batch()
    low = [tensor.detach().bfloat16() for tensor in (logprobs, behavior, advantages)]
    assert policy_loss(*low, mask, LossConfig(), samples)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": torch.zeros(1, 20)}, "logprobs must have the shape"),
        ({"behavior_logprobs": torch.zeros(19)}, "behavior_logprobs must have the shape of logprobs"),
        ({"advantages": torch.zeros(4)}, "advantages must have the shape of logprobs"),
        ({"mask": torch.ones(20)}, "mask must be bool"),
        ({"sequence_ids": torch.zeros(4)}, "sequence_ids must have the shape of logprobs"),
        ({"weights": torch.zeros(4)}, "weights must have the shape of logprobs"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, message):
    names = ("logprobs", "behavior_logprobs", "advantages", "mask", "sequence_ids")
    with pytest.raises(ValueError, match=message):
        policy_loss(**{**dict(zip(names, batch(), strict=True)), **change})


def samples_of(*sizes, weight=1.0):
    return [
        Sample(list(range(size + 2)), [False] * 2 + [True] * size, [0.0] * (size + 2), name, weight=weight)
        for name, size in sizes
    ]


def test_the_denominator():
    samples = samples_of(("a", 3), ("b", 5)) + samples_of(("a", 2), weight=0.5)
    assert loss_denominator(samples, LossConfig(norm="token")) == 3 + 5 + 0.5 * 2
    assert loss_denominator(samples, LossConfig(norm="sequence")) == 2.5
    assert loss_denominator(samples, LossConfig(norm="constant", norm_tokens=100)) == 200  # rollouts, not samples
    with pytest.raises(ValueError, match="needs norm_tokens"):
        loss_denominator(samples, LossConfig(preset="dr_grpo"))
    with pytest.raises(ValueError, match="nothing to train"):
        loss_denominator([])


def test_a_preset_that_the_loss_does_not_know_is_refused():
    """It must not be trained with another preset's loss."""
    values = torch.zeros(3)
    config = LossConfig.model_construct(preset="reinforce_plus", norm="token", kl_tau=0.0, clip_low=0.2, clip_high=0.2)
    with pytest.raises(ValueError, match="unknown loss preset 'reinforce_plus'"):
        policy_loss(values, values, values, torch.ones(3, dtype=torch.bool), config)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_loss_knows_every_preset(preset):
    values = torch.zeros(3)
    assert torch.isfinite(
        policy_loss(values, values, values, torch.ones(3, dtype=torch.bool), LossConfig(preset=preset))[0]
    )


def sequence_mean_for_token_mean(patch):
    patch.setattr(Pipeline, "config", LossConfig(preset="prime", norm="sequence"))


def mean_of_means(patch):
    def each_by_itself(self, packs):
        return [loss.loss_denominator(pack, self.config) * len(packs) for pack in packs]

    patch.setattr(Pipeline, "divisors", each_by_itself)


@pytest.mark.parametrize("bug", [sequence_mean_for_token_mean, mean_of_means], ids=lambda bug: bug.__name__)
def test_a_classic_bug_is_seen(bug, plain_step):
    plain_step.assert_seen(bug)


@pytest.mark.parametrize("preset", ["prime", "dapo", "dr_grpo", "gspo"])
def test_one_token_that_the_engine_found_next_to_impossible_does_not_cost_a_step(preset):
    """Its ratio is e^94: infinite in float32. It keeps what keeps the policy near, and teaches nothing else."""
    behavior = torch.tensor([-95.0, -1.0, -2.0])
    logprobs = torch.tensor([-1.0, -1.0, -2.0], requires_grad=True)
    settings = {"norm_tokens": 3} if preset == "dr_grpo" else {}
    config = LossConfig(preset=preset, kl_tau=0.0, **settings)
    ids = torch.tensor([0, 1, 1])
    total, metrics = policy_loss(logprobs, behavior, -torch.ones(3), torch.ones(3, dtype=torch.bool), config, ids)
    assert torch.isfinite(total)
    found = gradient(total, logprobs)
    assert found[0] == 0
    assert torch.allclose(found[1:], torch.ones(2) / (2 if config.norm == "sequence" else 1))
    assert (metrics["clipped"], metrics["clipped_low"]) == (1, 1)
    bare = config.model_copy(update={"ratio_cap": None})
    assert not torch.isfinite(
        gradient(policy_loss(logprobs, behavior, -torch.ones(3), ids < 2, bare, ids)[0], logprobs)
    ).all()


def test_the_cap_is_trls_delta():
    """With a negative advantage the ratio counts as at most the cap; with a positive one clipping comes first."""
    behavior = torch.full((4,), -3.0, dtype=torch.float64)
    logprobs = (behavior + torch.log(torch.tensor([1.9, 2.1, 1.9, 2.1]))).requires_grad_()
    advantages = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    total, metrics = policy_loss(
        logprobs, behavior, advantages, torch.ones(4, dtype=torch.bool), LossConfig(preset="dapo", ratio_cap=2.0)
    )
    assert total.item() == pytest.approx(1.9 + 2.0 - 1.28 - 1.28, abs=1e-6)
    assert gradient(total, logprobs).tolist() == pytest.approx([1.9, 0.0, 0.0, 0.0], abs=1e-6)
    assert metrics["clipped"] == 3


@pytest.mark.parametrize("preset", POLICY_PRESETS)
@pytest.mark.parametrize(("setting", "left_out"), [("filter_token_ratio", {1, 2}), ("filter_sample_ratio", {2})])
def test_a_filter_leaves_whole_samples_out(preset, setting, left_out):
    """Sample 0 is near, 1 has one token far away, 2 is far away as a whole; the loss is that of the others."""
    log_ratio = torch.tensor([0.1, -0.1, 0.05, 2.0, -0.1, -0.1, 1.0, 1.1, 0.9, -0.2], dtype=torch.float64)
    ids = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3])
    behavior = torch.full((10,), -3.0, dtype=torch.float64)
    logprobs = (behavior + log_ratio).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)[ids]
    mask = torch.ones(10, dtype=torch.bool)
    plain = LossConfig(preset=preset, kl_tau=0.1)
    config = LossConfig(preset=preset, kl_tau=0.1, **{setting: 2.0})
    kept = ~torch.isin(ids, torch.tensor(sorted(left_out)))
    found, metrics = policy_loss(logprobs, behavior, advantages, mask, config, ids)
    expected, _ = policy_loss(logprobs, behavior, advantages, kept, plain, ids)
    assert torch.allclose(found, expected)
    assert torch.allclose(gradient(found, logprobs), gradient(expected, logprobs))
    assert metrics["filtered"] == (~kept).sum()
    assert metrics["tokens"] == 10


def test_a_filtered_token_beyond_float32_does_not_poison_the_gradient():
    behavior, logprobs = torch.tensor([-200.0, -1.0]), torch.tensor([-1.0, -1.0], requires_grad=True)
    config = LossConfig(kl_tau=0, filter_token_ratio=10.0).model_copy(update={"ratio_cap": None})
    total, _ = policy_loss(
        logprobs, behavior, -torch.ones(2), torch.ones(2, dtype=torch.bool), config, torch.tensor([0, 1])
    )
    assert gradient(total, logprobs).tolist() == [0.0, 1.0]


def test_sft_has_no_ratio_to_filter_by():
    with pytest.raises(ValueError, match="filter_token_ratio has no effect with preset 'sft'"):
        LossConfig(preset="sft", filter_token_ratio=2.0)


def weighted_sum(samples, config, values):
    """The loss of a step whose tokens have these losses, by sample."""
    weights = loss.sample_weights(samples, config)
    total = sum(w * v * s.trained_tokens for w, v, s in zip(weights, values, samples, strict=True))
    return total / loss_denominator(samples, config)


def test_norms_by_rollout_and_role():
    """Two rollouts: "a" with a root of 3 tokens and sub-calls of 5 and 4, "b" with a root of 2 alone."""
    a, b, one, two = samples_of(("a", 3), ("b", 2), ("a", 5), ("a", 4))
    for sub in (one, two):
        sub.kind, sub.weight = SampleKind.SUB, 0.5
    samples = [a, b, one, two]
    values = [7.0, 11.0, 1.0, 2.0]
    by_rollout = ((3 * 7.0 + 0.5 * (5 * 1.0 + 4 * 2.0)) / (3 + 0.5 * 9) + 11.0) / 2
    assert weighted_sum(samples, LossConfig(norm="rollout"), values) == pytest.approx(by_rollout)
    by_role = (7.0 + 0.5 * (5 * 1.0 + 4 * 2.0) / 9 + 11.0) / (1 + 0.5 + 1)
    assert weighted_sum(samples, LossConfig(norm="role"), values) == pytest.approx(by_role)
    many = samples + samples_of(*[("a", 5)] * 200)
    for sub in many[4:]:
        sub.kind, sub.weight = SampleKind.SUB, 0.5
    constant = [1.0] * len(many)
    for norm in ("rollout", "role"):  # a loss of 1 everywhere is 1, and sub-calls do not outweigh
        assert weighted_sum(many, LossConfig(norm=norm), constant) == pytest.approx(1.0)
    only_root = [float(sample.kind is SampleKind.ROOT) for sample in many]
    assert weighted_sum(many, LossConfig(norm="role"), only_root) == pytest.approx(2 / 2.5)
