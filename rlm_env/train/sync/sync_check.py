"""Does the engine serve the trainer's weights? Both are asked for log-probabilities of the same fixed conversation.

Two things are compared after each update. The *values* must agree within a tolerance, which finds weights that did not
arrive, types that differ, and a prefix cache that still holds keys and values of earlier weights. The *changes* since
the update before must agree too, which finds an engine that has kept old weights, or some of them, although the step
was so small that old and new values are within the tolerance.
How weights travel is the business of `weight_sync.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from rlm_env.llm.base import LLMError, Request, Sampling
from rlm_env.llm.token_batches import NEUTRAL_SAMPLING
from rlm_env.train.learner.samples import Sample
from rlm_env.train.sync.engine import TrainEngine

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}
"""Largest mean absolute difference of log-probabilities, in nats, by the coarser of the two types."""
PROMPTS = 8
"""Questions in the fixed conversation."""
REPLY_TOKENS = 48
"""Tokens that the engine samples for each of them."""
CACHED_TOKENS = 16
"""The last tokens of the conversation are also asked for one by one, each after a prefix that may be cached."""
ROUNDING_MULTIPLES = 5.0
"""Tolerance for the part of the trainer's change that the engine did not make, in multiples of the rounding noise."""
CHANGE_TOLERANCE = 0.02
"""Additional tolerance for it, as a share of the trainer's change."""
SAMPLING = NEUTRAL_SAMPLING | {"temperature": 1.0, "top_p": 1.0}


class SyncError(Exception):
    """The engine does not serve the trainer's weights. The message says how that was found out."""


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of the conversation's sampled tokens, from the engine or from the trainer."""

    fresh: list[float]
    """Shape [sampled tokens], computed without the prefix cache."""
    cached: list[float]
    """Shape [at most CACHED_TOKENS], the last tokens, computed after a prefix that may come from the cache."""


@dataclass(frozen=True, slots=True)
class BothLogprobs:
    """What engine and trainer answered at one check."""

    engine: Logprobs
    trainer: Logprobs


@dataclass(frozen=True, slots=True)
class SharedChange:
    """How much of the trainer's change since the last check the engine made too."""

    share: float
    """1 with the new weights, 0 with the old ones: 1 - |engine's change - trainer's|^2 / |trainer's change|^2."""
    least: float
    """What `share` must be, given how much the two differed by rounding at the last check."""


@dataclass(frozen=True, slots=True)
class SyncCheck:
    """How far the engine's log-probabilities are from the trainer's, in nats."""

    max_abs: float
    mean_abs: float
    cached_mean_abs: float
    """For the tokens after a cached prefix. If this alone is large, the cache is stale."""
    tokens: int
    change: SharedChange | None = None
    """None at the first check, and where the trainer's change is too small to tell from rounding."""


class FixedConversation:
    """A few questions and what the engine answered at the start of the run, concatenated.

    `mask`: True where the engine sampled the token. Only these tokens are compared, since rounding in 16 bits changes
    the probability of unlikely tokens most.
    """

    def __init__(self, ids: list[int], mask: list[bool]) -> None:
        self.ids = ids
        self.mask = mask
        last_reply = len(mask) - max((place for place, sampled in enumerate(mask) if not sampled), default=-1) - 1
        if not last_reply:
            raise ValueError("the conversation must end with tokens that were sampled")
        self._cached = min(CACHED_TOKENS, last_reply)

    @classmethod
    async def sample(cls, engine: TrainEngine) -> Self:
        """Samples one that fits the engine's window. Raises LLMError."""
        extra = {"ignore_eos": True, "stop_token_ids": []}
        requests = [
            Request(
                [{"role": "user", "content": f"Part {part}: how many lines are there, and what do they say?"}],
                sampling=Sampling(max_tokens=REPLY_TOKENS, seed=part, extra=extra),
            )
            for part in range(PROMPTS)
        ]
        window = engine.policy.context_window
        room = None if window is None else window - 1  # since a question about the last token samples one more
        ids: list[int] = []
        mask: list[bool] = []
        for result in await engine.policy.complete_many(requests):
            if isinstance(result, LLMError):
                raise result
            prompt, reply = result.prompt_ids or [], result.completion_ids or []
            if ids and room is not None and len(ids) + len(prompt) + len(reply) > room:
                break
            ids += prompt + reply
            mask += [False] * len(prompt) + [True] * len(reply)
        return cls(ids[:room], mask[:room])

    @property
    def as_sample(self) -> Sample:
        """A sample for the trainer to score, at temperature 1."""
        return Sample(self.ids, self.mask, [0.0] * len(self.ids), "sync-check")

    def trainer_logprobs(self, logprobs: Sequence[float]) -> Logprobs:
        """From the log-probabilities of the trained tokens of `as_sample`."""
        if len(logprobs) != sum(self.mask):
            raise ValueError(f"expected {sum(self.mask)} log-probabilities, got {len(logprobs)}")
        return Logprobs(list(logprobs), list(logprobs[-self._cached :]))

    async def engine_logprobs(self, engine: TrainEngine) -> Logprobs:
        """Asks the engine, past the gate. Raises LLMError."""
        # The cached ones first: asking for log-probabilities of a prompt makes vLLM compute all of it afresh.
        return Logprobs(cached=await self._ask_cached(engine), fresh=await self._ask_fresh(engine))

    async def fill_cache(self, engine: TrainEngine) -> None:
        """Puts the conversation into the prefix cache, so that a cache that survives the next update is found out."""
        await self._ask_cached(engine)

    async def _ask_cached(self, engine: TrainEngine) -> list[float]:
        targets = self.ids[-self._cached :]
        body = {
            "prompt": [self.ids[: len(self.ids) - self._cached + index] for index in range(self._cached)],
            "max_tokens": 1,
            "logprobs": 0,
            "logprob_token_ids": sorted(set(targets)),
            "return_tokens_as_token_ids": True,
        }
        reply = await engine.completions(body | SAMPLING)
        choices = sorted(reply["choices"], key=lambda choice: choice["index"])
        return [
            choice["logprobs"]["top_logprobs"][0][f"token_id:{target}"]
            for choice, target in zip(choices, targets, strict=True)
        ]

    async def _ask_fresh(self, engine: TrainEngine) -> list[float]:
        body = {"prompt": self.ids, "max_tokens": 1, "prompt_logprobs": 0}
        reply = await engine.completions(body | SAMPLING)
        found = reply["choices"][0]["prompt_logprobs"]
        return [found[place][str(self.ids[place])]["logprob"] for place, sampled in enumerate(self.mask) if sampled]


def compare(now: BothLogprobs, before: BothLogprobs | None = None) -> SyncCheck:
    """The differences after an update. `before`: what was answered at the check before it."""
    fresh = _differences(now.engine.fresh, now.trainer.fresh)
    cached = _differences(now.engine.cached, now.trainer.cached)
    change = None if before is None else _shared_change(now, before)
    return SyncCheck(max(*fresh, *cached), fmean(fresh), fmean(cached), len(fresh), change)


def require_agreement(check: SyncCheck, tolerance: float, version: int) -> None:
    """Raises SyncError where the engine's numbers cannot come from the trainer's weights."""
    found = (
        f"after the update to version {version}, the engine's log-probabilities of {check.tokens} fixed tokens differ "
        f"from the trainer's by {check.mean_abs:.3g} on average (largest {check.max_abs:.3g}; at most {tolerance:g} "
        "expected)"
    )
    change = "" if check.change is None else f" and made {check.change.share:.0%} of the trainer's last change"
    if not check.mean_abs <= tolerance:  # also refuses nan
        raise SyncError(f"{found}{change}: it serves other weights. {_REMEDY}")
    if not check.cached_mean_abs <= tolerance:
        raise SyncError(
            f"after the update to version {version}, the engine's log-probabilities after a cached prefix differ from "
            f"the trainer's by {check.cached_mean_abs:.3g} on average (at most {tolerance:g} expected), those computed "
            f"afresh by {check.mean_abs:.3g}: its prefix cache holds keys and values of earlier weights. Leave the "
            'cache out with engine.extra_args = ["--no-enable-prefix-caching"], and look into the engine\'s log'
        )
    if check.change is not None and not check.change.share >= check.change.least:
        raise SyncError(
            f"{found}{change} (at least {check.change.least:.0%} expected): it has kept earlier weights, or some of "
            f"them. {_REMEDY}"
        )


_REMEDY = (
    "Look into the engine's log for tensors that were not loaded, and compare engine.dtype with trainer.dtype; if the "
    "two only round differently, raise sync.check_tolerance"
)


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(first, second, strict=True)]


def _shared_change(now: BothLogprobs, before: BothLogprobs) -> SharedChange | None:
    """None where rounding may explain half of the trainer's change, so that the comparison would say nothing."""
    engine = _changes(now.engine.fresh, before.engine.fresh)
    trainer = _changes(now.trainer.fresh, before.trainer.fresh)
    size = sum(change**2 for change in trainer)
    # Engine and trainer differ by rounding before the update and after it: twice the square of what was seen before.
    rounding = 2 * sum(gap**2 for gap in _differences(before.engine.fresh, before.trainer.fresh))
    if not ROUNDING_MULTIPLES * rounding < size / 2:
        return None
    missing = sum((e - t) ** 2 for e, t in zip(engine, trainer, strict=True))
    return SharedChange(1 - missing / size, 1 - CHANGE_TOLERANCE - ROUNDING_MULTIPLES * rounding / size)


def _changes(now: Sequence[float], before: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(now, before, strict=True)]
