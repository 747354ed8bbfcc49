"""Whether the engine serves the trainer's weights: log-probabilities of a fixed conversation, asked of both.

Covered: weights that did not arrive or arrived in part, keys and values of earlier weights in the prefix cache, types
that differ. Not covered: how weights travel (`weight_sync.py`).
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
"""Largest mean absolute difference, in nats, by the coarser of the two types."""
PARTS = 8
REPLY_TOKENS = 48
LAST_TOKENS = 16
"""Tokens that are asked one by one after the conversation before them, which the prefix cache may hold."""
NOISE = 5.0
"""How many times as much of a movement as rounding explains may be missing."""
MISSING = 0.02
"""How much of a movement may be missing besides."""


class SyncError(Exception):
    """The engine does not serve the weights that the trainer has; the message says how that shows."""


@dataclass(frozen=True, slots=True)
class SyncCheck:
    """How far the engine's log-probabilities are from the trainer's, in nats."""

    max_abs: float
    mean_abs: float
    cached_mean_abs: float
    """Of the tokens that follow a prefix which the cache may hold: far off alone where the cache is stale."""
    tokens: int
    followed: float | None = None
    """How much of the trainer's movement since the last check the engine made too, as a share of its square: 1 where
    it has the new weights, 0 where it has the old ones. None where there was none, or too little to tell from
    rounding."""
    followed_least: float | None = None
    """What `followed` must be, by how much the two differed at the last check."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of the conversation's sampled tokens, as one side says them."""

    whole: list[float]
    """[sampled tokens], computed afresh."""
    last: list[float]
    """[at most LAST_TOKENS], computed after a prefix that may come out of the cache."""


class Probe:
    """The fixed conversation: a few questions and what the engine answered at the start of the run, end to end.

    `mask`: True where the engine sampled the token. Only these are compared: the probability of what the model would
    hardly say itself is known less well in 16 bits.
    """

    def __init__(self, ids: list[int], mask: list[bool]) -> None:
        self.ids = ids
        self.mask = mask
        last_reply = len(mask) - max((place for place, sampled in enumerate(mask) if not sampled), default=-1) - 1
        if not last_reply:
            raise ValueError("the conversation must end with tokens that were sampled")
        self._last = min(LAST_TOKENS, last_reply)

    @classmethod
    async def sample(cls, engine: TrainEngine) -> Self:
        """Samples it; no longer than the window."""
        extra = {"ignore_eos": True, "stop_token_ids": []}
        requests = [
            Request(
                [{"role": "user", "content": f"Part {part}: how many lines are there, and what do they say?"}],
                sampling=Sampling(max_tokens=REPLY_TOKENS, seed=part, extra=extra),
            )
            for part in range(PARTS)
        ]
        room = engine.policy.context_window - 1  # since a question about the last token samples one more
        ids: list[int] = []
        mask: list[bool] = []
        for result in await engine.policy.complete_many(requests):
            if isinstance(result, LLMError):
                raise result
            if ids and len(ids) + len(result.prompt_ids) + len(result.completion_ids) > room:
                break
            ids += result.prompt_ids + result.completion_ids
            mask += [False] * len(result.prompt_ids) + [True] * len(result.completion_ids)
        return cls(ids[:room], mask[:room])

    @property
    def as_sample(self) -> Sample:
        """It as a sample that a trainer scores, at temperature 1."""
        return Sample(self.ids, self.mask, [0.0] * len(self.ids), "sync-check")

    def trainer_scores(self, logprobs: Sequence[float]) -> Scores:
        """From the log-probabilities of the sample's trained tokens."""
        if len(logprobs) != sum(self.mask):
            raise ValueError(f"expected {sum(self.mask)} log-probabilities, got {len(logprobs)}")
        return Scores(list(logprobs), list(logprobs[-self._last :]))

    async def engine_scores(self, engine: TrainEngine) -> Scores:
        """Asked past the gate. First the last tokens, since asking for log-probabilities of a prompt makes vLLM
        compute all of it afresh. Raises LLMError."""
        return Scores(last=await self._ask_last(engine), whole=await self._ask_whole(engine))

    async def fill_cache(self, engine: TrainEngine) -> None:
        """Leaves keys and values of the conversation in the prefix cache: should they outlive an update, it shows."""
        await self._ask_last(engine)

    async def _ask_last(self, engine: TrainEngine) -> list[float]:
        targets = self.ids[-self._last :]
        body = {
            "prompt": [self.ids[: len(self.ids) - self._last + index] for index in range(self._last)],
            "max_tokens": 1,
            "logprobs": 0,
            "logprob_token_ids": sorted(set(targets)),
            "return_tokens_as_token_ids": True,
        }
        reply = await engine.completions(body | NEUTRAL)
        choices = sorted(reply["choices"], key=lambda choice: choice["index"])
        return [
            choice["logprobs"]["top_logprobs"][0][f"token_id:{target}"]
            for choice, target in zip(choices, targets, strict=True)
        ]

    async def _ask_whole(self, engine: TrainEngine) -> list[float]:
        body = {"prompt": self.ids, "max_tokens": 1, "prompt_logprobs": 0}
        reply = await engine.completions(body | NEUTRAL)
        found = reply["choices"][0]["prompt_logprobs"]
        return [found[place][str(self.ids[place])]["logprob"] for place, sampled in enumerate(self.mask) if sampled]


NEUTRAL = NEUTRAL_SAMPLING | {"temperature": 1.0, "top_p": 1.0}


def compare(engine: Scores, trainer: Scores, before: tuple[Scores, Scores] | None = None) -> SyncCheck:
    """`before`: the same two before the update."""
    gaps = _gaps(engine.whole, trainer.whole)
    cached = _gaps(engine.last, trainer.last)
    followed, least = (None, None) if before is None else _followed(engine.whole, trainer.whole, *before)
    return SyncCheck(max(*gaps, *cached), fmean(gaps), fmean(cached), len(gaps), followed, least)


def judge(check: SyncCheck, tolerance: float, version: int) -> None:
    """Raises SyncError where the engine's numbers cannot come from the trainer's weights."""
    found = (
        f"after the update to version {version}, the engine's log-probabilities of {check.tokens} fixed tokens differ "
        f"from the trainer's by {check.mean_abs:.3g} on average (largest {check.max_abs:.3g}; at most {tolerance:g} "
        "expected)"
    )
    moved = "" if check.followed is None else f" and made {check.followed:.0%} of the trainer's last movement"
    if not check.mean_abs <= tolerance:  # also refuses nan
        raise SyncError(f"{found}{moved}: it serves other weights. {_REMEDY}")
    if not check.cached_mean_abs <= tolerance:
        raise SyncError(
            f"after the update to version {version}, the engine's log-probabilities after a cached prefix differ from "
            f"the trainer's by {check.cached_mean_abs:.3g} on average (at most {tolerance:g} expected), those computed "
            f"afresh by {check.mean_abs:.3g}: its prefix cache holds keys and values of earlier weights. Leave the "
            'cache out with engine.extra_args = ["--no-enable-prefix-caching"], and look into the engine\'s log'
        )
    if check.followed is not None and not check.followed >= check.followed_least:
        raise SyncError(
            f"{found}{moved} (at least {check.followed_least:.0%} expected): it has kept earlier weights, or a part of "
            f"them. {_REMEDY}"
        )


_REMEDY = (
    "Look into the engine's log for tensors that were not loaded, and compare engine.dtype with trainer.dtype; if the "
    "two only round differently, raise sync.check_tolerance"
)


def _gaps(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(first, second, strict=True)]


def _followed(
    engine: Sequence[float], trainer: Sequence[float], engine_before: Scores, trainer_before: Scores
) -> tuple[float, float] | tuple[None, None]:
    """The share and its least value: what is missing of the trainer's movement, squared, is compared with what the
    differences that there were before the update explain (twice their square, since there are as many after it)."""
    before = list(zip(engine_before.whole, trainer_before.whole, strict=True))
    moves = [(e - eb, t - tb) for e, t, (eb, tb) in zip(engine, trainer, before, strict=True)]
    size = sum(t * t for _, t in moves)
    explained = 2 * sum((eb - tb) ** 2 for eb, tb in before)
    if not NOISE * explained < size / 2:
        return None, None
    missing = sum((e - t) ** 2 for e, t in moves)
    return 1 - missing / size, 1 - MISSING - NOISE * explained / size
