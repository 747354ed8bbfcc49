"""The classic bugs of RL trainers, put in one at a time: each must be seen, and be gone when it is taken out.

What sees them is one comparison: the gradient of a step over two groups of rollouts (turns that continue, a history
that was rewritten, sub-calls), made the way the package makes it, against the plainest way there is: every reply by
itself, straight from the record, through the model's own forward, in float64. Covered: the bugs that live in samples,
advantages, packs, log-probabilities and loss. Not covered: those of an engine (stale caches, weights not updated).
"""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from rlm_env.rollout import Rollout, Score, SubCall, Turn  # noqa: E402
from rlm_env.train.learner import forward, logprobs, loss, packing  # noqa: E402
from rlm_env.train.learner import samples as samples  # noqa: E402
from rlm_env.train.learner.config import LossConfig  # noqa: E402
from rlm_env.train.rl import advantage  # noqa: E402

TEMPERATURE = 0.7
CONFIG = LossConfig(preset="prime")
EOS = PAD = 1
SEEN = 5e-3
"""A bug moves the whole gradient by at least this much, relative; bfloat16 moves it least."""
EXACT = 1e-6
"""Samples keep behavior logprobs in float32; all else is in float64."""


class Recorder:
    """Makes replies up, as an engine would have sampled and recorded them."""

    def __init__(self, model):
        self.model = model
        self.generator = torch.Generator().manual_seed(5)

    def ids(self, size):
        return torch.randint(2, 97, (size,), generator=self.generator).tolist()

    def reply(self, prompt, size):
        sampled = [*self.ids(size - 1), EOS]
        noise = 0.3 * torch.randn(size, generator=self.generator, dtype=torch.float64)
        with torch.no_grad():
            values = plain_logprobs(self.model, prompt, sampled) + noise
        return {"prompt_ids": prompt, "completion_ids": sampled, "logprobs": values.clamp(max=-1e-3).tolist()}

    def rollout(self, name, reward, subs):
        first = Turn(**self.reply(self.ids(5), 6))
        second = Turn(**self.reply(first.prompt_ids + first.completion_ids + self.ids(4), 3))
        # A template that drops the first two tokens of an earlier reply.
        rewritten = first.prompt_ids + first.completion_ids[2:] + self.ids(7)
        third = Turn(**self.reply(rewritten, 5))
        calls = [SubCall(index, 0, 0, [], **self.reply(self.ids(4), 2)) for index in range(subs)]
        return Rollout(id=name, turns=[first, second, third], sub_calls=calls, score=Score(reward))


def plain_logprobs(model, prompt, sampled):
    logits = model(torch.tensor([prompt + sampled])).logits[0] / TEMPERATURE
    return torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, torch.tensor(sampled)[:, None])[:, 0]


def reference(model, groups):
    """The gradient, the plainest way."""
    total, tokens = 0.0, 0
    for group in groups:
        mean = sum(rollout.score.value for rollout in group) / len(group)
        for rollout in group:
            for reply in [*rollout.turns, *rollout.sub_calls]:
                p = plain_logprobs(model, reply.prompt_ids, reply.completion_ids)
                q = torch.tensor(reply.logprobs, dtype=torch.float64)
                a = rollout.score.value - mean
                moved = (p.exp() - q.exp()).detach()
                kept = moved <= 0.2 if a > 0 else moved >= -0.2
                total = total - (a * (p - q).exp())[kept].sum() + 1e-3 * ((p - q) ** 2).sum()
                tokens += len(p)
    return gradient(model, total / tokens)


class Pipeline:
    """The package's way, in the steps that a bug can get into."""

    config = CONFIG

    def advantages(self, groups):
        """By rollout id."""
        found = {}
        for group in groups:
            values = advantage.group_advantages([rollout.score.value for rollout in group])
            found |= {rollout.id: value for rollout, value in zip(group, values, strict=True)}
        return found

    def samples(self, groups):
        return [sample for group in groups for rollout in group for sample in samples.rollout_samples(rollout)]

    def divisors(self, packs):
        """What the sum of each pack is divided by."""
        return [loss.loss_denominator([sample for pack in packs for sample in pack], self.config)] * len(packs)

    def logprobs(self, model, pack):
        return forward.pack_logprobs(model, pack, TEMPERATURE).logprobs

    def gradient(self, model, groups):
        advantages = self.advantages(groups)
        packs = packing.pack_samples(self.samples(groups), 60)
        assert len(packs) > 1
        total = 0.0
        for pack, divisor in zip(packs, self.divisors(packs), strict=True):
            batch = packing.collate(pack)
            spread = batch.spread([advantages[sample.rollout_id] for sample in batch.samples])
            tensors = (self.logprobs(model, batch), batch.behavior_logprobs, spread, batch.mask)
            total = total + loss.policy_loss(*tensors, self.config, batch.sequence_ids)[0] / divisor
        return gradient(model, total)


def gradient(model, value):
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(model.parameters()))])


def off_by_one(patch):
    """A token's logprob is read where the token itself was put in."""
    original = forward.last_hidden_state
    patch.setattr(forward, "last_hidden_state", lambda *args: original(*args).roll(-1, dims=1))


def environment_tokens_trained(patch):
    original = samples.rollout_samples

    def everything_after_the_prompt(rollout):
        found = original(rollout)
        for sample in found:
            first = sample.mask.index(True)
            sample.mask[first:] = [True] * (len(sample) - first)
        return found

    patch.setattr(samples, "rollout_samples", everything_after_the_prompt)


def sequence_mean_for_token_mean(patch):
    patch.setattr(Pipeline, "config", LossConfig(preset="prime", norm="sequence"))


def mean_of_means(patch):
    def each_by_itself(self, packs):
        return [loss.loss_denominator(pack, self.config) * len(packs) for pack in packs]

    patch.setattr(Pipeline, "divisors", each_by_itself)


def no_temperature(patch):
    patch.setattr(Pipeline, "logprobs", lambda _, model, pack: forward.pack_logprobs(model, pack).logprobs)


def bfloat16_softmax(patch):
    original = logprobs._logits
    patch.setattr(logprobs, "_logits", lambda *args: torch.log_softmax(original(*args).bfloat16(), -1).double())


def packing_leak_by_attention_mask(patch):
    def leaking(model, input_ids, position_ids):
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        return model.model(**inputs, position_ids=position_ids, use_cache=False).last_hidden_state

    patch.setattr(forward, "last_hidden_state", leaking)


def packing_leak_by_position_ids(patch):
    original = packing.collate

    def running_on(pack):
        batch = original(pack)
        return replace(batch, position_ids=torch.arange(len(batch))[None])

    patch.setattr(packing, "collate", running_on)


def retokenization(patch):
    """Decoded and encoded again, two sampled tokens come back as one."""
    original = samples.rollout_samples

    def merged(rollout):
        found = original(rollout)
        for sample in found:
            first = sample.mask.index(True)
            sample.token_ids[first : first + 2] = [(sample.token_ids[first] + sample.token_ids[first + 1]) % 97]
            del sample.mask[first], sample.behavior_logprobs[first]
        return found

    patch.setattr(samples, "rollout_samples", merged)


def one_sample_despite_a_rewritten_history(patch):
    patch.setattr(samples, "_longest_prefix", lambda found, _: found[-1] if found else None)


def shared_tokens_trained_twice(patch):
    """The fork trains the replies that stand in its prompt again."""
    original = samples.rollout_samples

    def again(rollout):
        found = original(rollout)
        first, fork = found[0], found[1]
        fork.mask[5:9] = first.mask[7:11]
        fork.behavior_logprobs[5:9] = first.behavior_logprobs[7:11]
        return found

    patch.setattr(samples, "rollout_samples", again)


def end_of_reply_taken_for_padding(patch):
    """Where pad and eos are one token, masking what looks like padding never trains the end of a reply."""
    original = packing.collate

    def without_padding(pack):
        batch = original(pack)
        return replace(batch, mask=batch.mask & (batch.input_ids[0] != PAD))

    patch.setattr(packing, "collate", without_padding)


def advantages_across_groups(patch):
    original = Pipeline.advantages
    patch.setattr(Pipeline, "advantages", lambda self, groups: original(self, [[r for g in groups for r in g]]))


def baseline_over_samples(patch):
    """Root and sub samples of a group in one baseline, so that rollouts count by how many samples they have."""

    def over_samples(self, groups):
        found = {}
        for group in groups:
            names = [sample.rollout_id for rollout in group for sample in samples.rollout_samples(rollout)]
            reward = {rollout.id: rollout.score.value for rollout in group}
            values = advantage.group_advantages([reward[name] for name in names])
            found |= dict(zip(names, values, strict=True))
        return found

    patch.setattr(Pipeline, "advantages", over_samples)


BUGS = [
    off_by_one,
    environment_tokens_trained,
    sequence_mean_for_token_mean,
    mean_of_means,
    no_temperature,
    bfloat16_softmax,
    packing_leak_by_attention_mask,
    packing_leak_by_position_ids,
    retokenization,
    one_sample_despite_a_rewritten_history,
    shared_tokens_trained_twice,
    end_of_reply_taken_for_padding,
    advantages_across_groups,
    baseline_over_samples,
]


@pytest.fixture(scope="module")
def step(make_qwen3):
    """Measures the relative error of the whole gradient of a step."""
    model = make_qwen3(torch.float64)
    recorder = Recorder(model)
    groups = [
        [recorder.rollout("a0", 1.0, 1), recorder.rollout("a1", 0.0, 4), recorder.rollout("a2", 0.25, 0)],
        [recorder.rollout("b0", 0.5, 2), recorder.rollout("b1", 0.1, 1)],
    ]
    right = reference(model, groups)

    def error():
        found = Pipeline().gradient(model, copy.deepcopy(groups))
        return ((found - right).norm() / right.norm()).item()

    return error


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_classic_bug_is_seen(bug, step):
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        error = step()
    assert error > SEEN
    assert step() < EXACT
