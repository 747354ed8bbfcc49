"""The gradient of one step, computed as the package does it and in the plainest way.

The plain way runs every reply by itself, straight from the record, through the model's own forward in float64. The step
is over two groups of rollouts with turns that continue, a history that was rewritten, and sub-calls. Tests use it to
inject the classic bugs of RL trainers one at a time: each must change the gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlm_env.rollout import Rollout, Score, SubCall, Turn
from rlm_env.train.learner import forward, loss, packing, samples
from rlm_env.train.learner.config import LossConfig
from rlm_env.train.learner.cost import Cost
from rlm_env.train.learner.tree_packing import tree_packs
from rlm_env.train.rl import advantage

Bug = Callable[[pytest.MonkeyPatch], None]

TEMPERATURE = 0.7
CONFIG = LossConfig(preset="prime")
EOS = PAD = 1
"""One token for both, as in many models."""
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
    as_trees = False
    """Whether what samples begin with in common is computed once."""

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
        made = self.samples(groups)
        packs = tree_packs(made, 60, 1, Cost(1, 0, 0).of) if self.as_trees else packing.pack_samples(made, 60)
        assert len(packs) > 1
        total = 0.0
        for pack, divisor in zip(packs, self.divisors(packs), strict=True):
            batch = packing.collate(pack, as_tree=True) if self.as_trees else packing.collate(pack)
            assert not self.as_trees or batch.computed < len(batch)
            spread = batch.spread([advantages[sample.rollout_id] for sample in batch.samples])
            tensors = (self.logprobs(model, batch), batch.behavior_logprobs, spread, batch.mask)
            total = total + loss.policy_loss(*tensors, self.config, batch.sequence_ids)[0] / divisor
        return gradient(model, total)


def gradient(model, value):
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(model.parameters()))])


class PlainStep:
    """Compares the package's gradient with the plain one."""

    def __init__(self, model: Any) -> None:
        self.model = model
        recorder = Recorder(model)
        self.groups = [
            [recorder.rollout("a0", 1.0, 1), recorder.rollout("a1", 0.0, 4), recorder.rollout("a2", 0.25, 0)],
            [recorder.rollout("b0", 0.5, 2), recorder.rollout("b1", 0.1, 1)],
        ]
        self.right = reference(model, self.groups)

    def error(self) -> float:
        """Relative error of the whole gradient."""
        found = Pipeline().gradient(self.model, copy.deepcopy(self.groups))
        return ((found - self.right).norm() / self.right.norm()).item()

    def assert_seen(self, bug: Bug) -> None:
        """The gradient is wrong with the bug and right without it."""
        with pytest.MonkeyPatch.context() as patch:
            bug(patch)
            error = self.error()
        assert error > SEEN
        assert self.error() < EXACT
