"""Converts a rollout into training samples, which are sequences of token ids.

A sample holds exactly the ids that the engine was given and the ids that it sampled; no text is encoded or decoded.
Not covered: advantages (`rl/advantage.py`), packing (`packing.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from typing import Any

import numpy as np

from rlm_env.llm.weight_versions import oldest
from rlm_env.rollout import Reply, Rollout
from rlm_env.train.learner.config import SamplesConfig

LOGPROB_SLACK = 1e-3
"""How far above 0 a log-probability may be by rounding."""
MAX_ADVANTAGE = 1e6
"""Larger advantages (in absolute value) are mistakes: no formula gives one above the size of a group."""
MAX_TOKEN_ID = 2**31 - 1
FLOAT32_MAX = 3.4e38
"""Beyond these a number would not come through into a pack."""


class SampleKind(StrEnum):
    """Which role sampled the trained tokens of a sample."""

    ROOT = "root"
    SUB = "sub"


@dataclass(slots=True)
class Sample:
    """One training sample: a sequence of token ids, some of which are trained. All lists have the shape [tokens]."""

    token_ids: list[int]
    mask: list[bool]
    """True where the token was sampled and is trained. Never at the first token, which nothing predicts."""
    behavior_logprobs: list[float]
    """The engine's log-probabilities (natural log, after temperature); 0.0 where `mask` is False."""
    rollout_id: str
    policy_version: int = 0
    """The weights that sampled its oldest trained token: optimizer steps since the start of training."""
    kind: SampleKind = SampleKind.ROOT
    weight: float = 1.0
    """Weight of each trained token, in the loss and in its denominator."""
    temperature: float = 1.0
    """The engine's temperature when it sampled; training computes log-probabilities at the same."""
    advantage: float = 0.0
    """The advantage of the rollout, the same for all its samples; set when its group is known."""
    label: str = ""
    """The environment's label in the run, for metrics by environment."""
    stands_for: float = 1.0
    """Samples that it counts for: itself, and a share of those of its rollout that were not drawn."""
    counted_tokens: float | None = None
    """Trained tokens that each of these has in the loss's denominator; None: as many as this one. Where samples were
    drawn it is the mean over all, so that the denominator does not depend on the draw."""
    teacher_logprobs: list[float] | None = None
    """The log-probabilities of a teacher (natural log, at temperature 1), [tokens]; 0.0 where `mask` is False. None: no
    teacher was asked."""
    teacher_weight: float = 0.0
    """Weight of what the teacher adds to each token's advantage, see `loss.distilled_advantages`."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def trained_tokens(self) -> int:
        return sum(self.mask)

    def check(self) -> None:
        """Raises ValueError where it cannot be trained: wrong types or lengths, numbers that have no meaning."""
        lists = {"token_ids": (int, self.token_ids), "mask": (bool, self.mask)}
        logprobs = {"behavior_logprobs": self.behavior_logprobs}
        if self.teacher_logprobs is not None:
            logprobs["teacher_logprobs"] = self.teacher_logprobs
        elif self.teacher_weight:
            raise ValueError("teacher_weight needs teacher_logprobs")
        for name, (kind, values) in {**lists, **{n: (float, v) for n, v in logprobs.items()}}.items():
            if not isinstance(values, list) or not set(map(type, values)) <= {kind, *([int] if kind is float else [])}:
                raise ValueError(f"{name} must be a list of {kind.__name__}")
            if len(values) != len(self.token_ids):
                raise ValueError(f"token_ids, mask and {', '.join(logprobs)} differ in length")
        if not self.token_ids:
            raise ValueError("it has no tokens")
        if min(self.token_ids) < 0:
            raise ValueError(f"token id {min(self.token_ids)} is negative")
        if max(self.token_ids) > MAX_TOKEN_ID:
            raise ValueError(f"a token id is above {MAX_TOKEN_ID:,}, which no vocabulary has")
        if self.mask[0]:
            raise ValueError("its first token is trained, but nothing predicts it")
        for name, values in logprobs.items():
            if not all(-FLOAT32_MAX <= value <= FLOAT32_MAX for value in values):
                raise ValueError(f"{name} must be finite")
            if max(values) > LOGPROB_SLACK:
                raise ValueError(f"{name} must not be above 0, got {max(values):g}")
        counted = {} if self.counted_tokens is None else {"counted_tokens": (0.0, math.inf)}
        for name, (low, high) in {**_BOUNDS, **counted}.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not low < value < high:
                raise ValueError(f"{name} must be a number above {low:g} and below {high:g}, got {value!r}")
        if type(self.teacher_weight) not in (int, float) or not 0 <= self.teacher_weight < math.inf:
            raise ValueError(f"teacher_weight must be a number of at least 0, got {self.teacher_weight!r}")
        if type(self.policy_version) is not int or self.policy_version < 0:
            raise ValueError(f"policy_version must be an int of at least 0, got {self.policy_version!r}")
        for name in ("rollout_id", "label"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, got {getattr(self, name)!r}")


_BOUNDS = {
    "weight": (0.0, math.inf),
    "temperature": (0.0, math.inf),
    "advantage": (-MAX_ADVANTAGE, MAX_ADVANTAGE),
    "stands_for": (0.0, math.inf),
}
"""Numbers of a sample, with the bounds that they must lie between."""


def joined(lists: Iterable[Iterable[float]], dtype: Any) -> np.ndarray:
    """The numbers of all lists, one after the other; several times as fast as making an array or a tensor of a list."""
    return np.fromiter(chain.from_iterable(lists), dtype)


def rollout_samples(
    rollout: Rollout, config: SamplesConfig | None = None, temperature: float | None = None
) -> list[Sample]:
    """The samples of a rollout: the root's in the order of their first turns, then those of each sub-call.

    A turn whose prompt starts with exactly the ids of an earlier sample continues that sample (the longest such). If
    there is none (the template rewrites history, history was compacted, or ids differ), the turn starts a new sample,
    in which earlier replies are context only. So every sampled token is trained exactly once, after exactly the ids
    that the engine had before it. Each sub-call is a separate conversation, of several replies if it used tools; of a
    failed sub-call, the replies before the failure are trained. Of more than `max_sub_calls` samples of sub-calls, as
    many are drawn, the same ones each time. `temperature`: at which they are trained; None: at which each role was
    sampled, which must then be above 0.

    Raises ValueError, naming rollout and turn, if ids or logprobs are missing or do not match.
    """
    found = recorded_samples(rollout, config)
    for sample in found:
        sample.temperature = sample.temperature if temperature is None else temperature
        try:
            sample.check()
        except ValueError as error:
            raise ValueError(f"rollout {rollout.id!r}: {error}") from error
    return found


def recorded_samples(rollout: Rollout, config: SamplesConfig | None = None) -> list[Sample]:
    """What `rollout_samples` makes, to look at: also what cannot be trained as it is, such as greedy replies.

    Raises ValueError, naming rollout and turn, if ids or logprobs are missing or do not match.
    """
    config = config or SamplesConfig()
    samples = []
    if config.train_root:
        samples = _conversation(rollout.turns, _blank(rollout, SampleKind.ROOT), f"rollout {rollout.id!r}")
    if config.train_sub_calls:
        blank, subs = _blank(rollout, SampleKind.SUB, config.sub_weight), []
        for call in rollout.sub_calls:
            subs += _conversation(call.replies, blank, f"rollout {rollout.id!r}, sub-call {call.id}")
        samples += _drawn(subs, config.max_sub_calls, rollout.id)
    return [sample for sample in samples if any(sample.mask)]


def _conversation(replies: Iterable[Reply], blank: Sample, name: str) -> list[Sample]:
    """The samples of one conversation, each a copy of `blank` with tokens."""
    samples: list[Sample] = []
    for index, reply in enumerate(replies):
        prompt, sampled, logprobs = _checked(reply, f"{name}, turn {index}")
        version = oldest(reply.weight_versions)
        version = blank.policy_version if version is None else version
        sample = _longest_prefix(samples, prompt)
        if sample is None:
            sample = replace(blank, token_ids=[], mask=[], behavior_logprobs=[], policy_version=version)
            samples.append(sample)
        sample.policy_version = min(sample.policy_version, version)
        _extend(sample, prompt, sampled, logprobs)
    return samples


def _blank(rollout: Rollout, kind: SampleKind, weight: float = 1.0) -> Sample:
    """A sample of the rollout without tokens."""
    version = rollout.group.policy_version if rollout.group is not None else 0
    label = rollout.group.label if rollout.group is not None else rollout.environment
    return Sample([], [], [], rollout.id, version, kind, weight, _temperature(rollout, kind), label=label)


def _drawn(samples: list[Sample], most: int | None, seed: str) -> list[Sample]:
    """At most `most` of the samples that train something, in order. Each of n is drawn with probability most / n and
    stands for n / most, so that any sum over samples keeps its expectation (Horvitz and Thompson, 1952)."""
    samples = [sample for sample in samples if any(sample.mask)]
    if most is None or len(samples) <= most:
        return samples
    places = sorted(random.Random(seed).sample(range(len(samples)), most))
    tokens = sum(sample.trained_tokens for sample in samples) / len(samples)
    return [replace(samples[p], stands_for=len(samples) / most, counted_tokens=tokens) for p in places]


def _temperature(rollout: Rollout, kind: SampleKind) -> float:
    """The recorded temperature of a role; 1 if there is none."""
    return rollout.info.get("sampling", {}).get(kind, {}).get("temperature", 1.0)


def _longest_prefix(samples: Iterable[Sample], prompt: list[int]) -> Sample | None:
    """The longest sample that is a prefix of the prompt."""
    fits = [sample for sample in samples if prompt[: len(sample)] == sample.token_ids]
    return max(fits, key=len, default=None)


def _extend(sample: Sample, prompt: list[int], sampled: list[int], logprobs: list[float]) -> None:
    """Adds a reply to a sample: what is new in its prompt as context, the sampled ids as trained."""
    new = prompt[len(sample) :]
    sample.token_ids += new + sampled
    sample.mask += [False] * len(new) + [True] * len(sampled)
    sample.behavior_logprobs += [0.0] * len(new) + logprobs


def _checked(reply: Reply, name: str) -> tuple[list[int], list[int], list[float]]:
    """Prompt ids, sampled ids and their logprobs."""
    prompt, sampled, logprobs = reply.prompt_ids, reply.completion_ids, reply.logprobs
    if prompt is None or sampled is None or logprobs is None:
        missing = [field for field in ("prompt_ids", "completion_ids", "logprobs") if getattr(reply, field) is None]
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
