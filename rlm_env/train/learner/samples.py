"""From a rollout to the samples of token ids that are trained.

Covered: the root conversation, its forks, sub-calls and their turns with tools. Not covered: advantages, packing;
and text: a sample holds the ids that the engine was given and the ids that it sampled, nothing is decoded or encoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from rlm_env.rollout import Reply, Rollout
from rlm_env.train.learner.config import SamplesConfig


class SampleKind(StrEnum):
    """Who sampled the trained tokens of a sample."""

    ROOT = "root"
    SUB = "sub"


@dataclass(slots=True)
class Sample:
    """One sequence of token ids, as the model reads it in training. All lists have the shape [tokens]."""

    token_ids: list[int]
    mask: list[bool]
    """True where the token was sampled and is trained here. Never at the first token, which nothing predicts."""
    behavior_logprobs: list[float]
    """Natural log, after temperature, as the engine sampled; 0.0 where `mask` is False."""
    rollout_id: str
    policy_version: int = 0
    """Which weights sampled: updates since the start of training, as in `GroupMember.policy_version`."""
    kind: SampleKind = SampleKind.ROOT
    weight: float = 1.0
    """What each trained token counts, in the loss and in its denominator."""
    temperature: float = 1.0
    """What the engine sampled the trained tokens with; log-probabilities are taken at the same."""
    advantage: float = 0.0
    """Of the rollout that the sample is of, the same for all its samples; set by who knows the group."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def trained_tokens(self) -> int:
        return sum(self.mask)


def rollout_samples(rollout: Rollout, config: SamplesConfig | None = None) -> list[Sample]:
    """The samples of a rollout: those of the root in the order of their first turns, then those of each sub-call.

    A turn whose prompt begins with exactly the ids of a sample before it continues that sample. Where no sample is a prefix
    (a template that rewrites history, a compaction, ids that came out differently), it begins a sample of its own, in
    which earlier replies are context only: every sampled token is trained exactly once, after exactly the ids that
    the engine had before it. A sub-call is a conversation of its own, of one reply or, with tools, of several; where
    it failed, the replies that it had before are trained.

    Raises ValueError, naming rollout and turn, where ids or logprobs are missing or do not match.
    """
    config = config or SamplesConfig()
    version = rollout.group.policy_version if rollout.group is not None else 0
    temperatures = {kind: _temperature(rollout, kind) for kind in SampleKind}
    blank = Sample([], [], [], rollout.id, version, SampleKind.ROOT, temperature=temperatures[SampleKind.ROOT])
    samples = _conversation(rollout.turns, blank, f"rollout {rollout.id!r}")
    if config.train_sub_calls:
        blank = Sample([], [], [], rollout.id, version, SampleKind.SUB, config.sub_weight, temperatures[SampleKind.SUB])
        for call in rollout.sub_calls:
            samples += _conversation(call.replies, blank, f"rollout {rollout.id!r}, sub-call {call.id}")
    return [sample for sample in samples if any(sample.mask)]


def _conversation(replies: Iterable[Reply], blank: Sample, name: str) -> list[Sample]:
    """The samples of one conversation, each like `blank`."""
    samples: list[Sample] = []
    for index, reply in enumerate(replies):
        prompt, sampled, logprobs = _checked(reply, f"{name}, turn {index}")
        sample = _longest_prefix(samples, prompt)
        if sample is None:
            sample = replace(blank, token_ids=[], mask=[], behavior_logprobs=[])
            samples.append(sample)
        _extend(sample, prompt, sampled, logprobs)
    return samples


def _temperature(rollout: Rollout, kind: SampleKind) -> float:
    """As recorded with the rollout; 1 where nothing is."""
    return rollout.info.get("sampling", {}).get(kind, {}).get("temperature", 1.0)


def _longest_prefix(samples: Iterable[Sample], prompt: list[int]) -> Sample | None:
    """The longest sample that the prompt begins with."""
    fits = [sample for sample in samples if prompt[: len(sample)] == sample.token_ids]
    return max(fits, key=len, default=None)


def _extend(sample: Sample, prompt: list[int], sampled: list[int], logprobs: list[float]) -> None:
    new = prompt[len(sample) :]
    sample.token_ids += new + sampled
    sample.mask += [False] * len(new) + [True] * len(sampled)
    sample.behavior_logprobs += [0.0] * len(new) + logprobs


def _checked(source: Reply, name: str) -> tuple[list[int], list[int], list[float]]:
    """Prompt ids, sampled ids and their logprobs."""
    prompt, sampled, logprobs = source.prompt_ids, source.completion_ids, source.logprobs
    missing = [field for field in ("prompt_ids", "completion_ids", "logprobs") if getattr(source, field) is None]
    if missing:
        raise ValueError(
            f"{name} has no {' and no '.join(missing)}: only what a token-in/token-out engine (TokenPolicy) sampled "
            "can be trained"
        )
    if not prompt:
        raise ValueError(f"{name} has empty prompt_ids: nothing predicts its first sampled token")
    if len(sampled) != len(logprobs):
        raise ValueError(f"{name} has {len(sampled)} completion_ids but {len(logprobs)} logprobs")
    if not all(map(math.isfinite, logprobs)):
        raise ValueError(f"{name} has logprobs that are not finite")
    return prompt, sampled, logprobs
