"""Sends token-id prompts to vLLM's `/v1/completions`, many in one request, and reads sampled ids and logprobs.

Not covered: how messages become ids (`chat_tokens.py`), the public policy (`token_policy.py`).
`scripts/bench/engine.py` measures what sharing a request gains.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from typing import Any

from rlm_env.llm.base import LLMError, Sampling
from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.llm.overflow import overflow_from_message
from rlm_env.llm.weight_versions import Stretches, WeightVersions

NEUTRAL_SAMPLING: dict[str, Any] = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent with every request. Otherwise vLLM takes defaults from the model's generation_config.json, and samples from
another distribution than the one that was asked for."""
LARGEST_ID = 2**31
"""Token ids are below it, whatever the model."""
ROUNDING = 1e-3
"""A log-probability may be above 0 by so much, and is 0 then."""
REFUSED = frozenset({400, 413, 422})
"""Statuses about the content of a request: a part of it may be accepted."""


@dataclass(slots=True)
class TokenJob:
    """One prompt in flight, and the tokens sampled for it so far."""

    prompt_ids: list[int]
    sampling: Sampling
    room: int
    """Tokens that may still be sampled: the sampling's own limit, or less where the window ends before."""
    completion_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stretches: Stretches = field(default_factory=list)
    """Which weights sampled them; empty where nobody counts versions."""
    finish_reason: str | None = None
    cached_tokens: int = 0
    error: LLMError | None = None

    @property
    def seeded(self) -> bool:
        """Whether it has a seed, and so cannot share a request."""
        return self.sampling.seed is not None or self.sampling.extra.get("seed") is not None

    @property
    def batch_key(self) -> str:
        """Equal for jobs that may be sent together."""
        return self.sampling.model_dump_json()

    @property
    def limit_key(self) -> tuple[int, ...]:
        """Equal for jobs of one batch that may share a request, which has one `max_tokens` for all its prompts.

        If the window leaves less room than the limit, a prompt is grouped with others that have about as much room.
        The request gets the smallest room of the group; prompts that need more are continued in another request,
        which samples from the same distribution. Continuing could split a stop string and would restart penalties,
        so prompts with either share a request only if their room is equal.
        """
        cut = self.room < self.sampling.max_tokens
        if cut and not self.sampling.stop and not self.sampling.extra:
            return (0, self.room.bit_length())
        return (1, self.room)


class TokenBatches:
    """One served model behind one endpoint.

    `stop_ids` end a completion (they stay in its ids). `largest`: most prompts of one request. `vocabulary`: sampled
    ids are below it; None: it is not known.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        stop_ids: list[int],
        largest: int,
        batches: bool = True,
        vocabulary: int | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._model = model
        self._stop_ids = stop_ids
        self._largest = largest
        self._vocabulary = vocabulary or LARGEST_ID
        self.batches = batches
        """Whether the endpoint takes many prompts in one request. Set to False once it has refused that and then
        accepted the same prompts one by one."""
        self._batch_succeeded = False
        self.versions = WeightVersions()

    async def run(self, jobs: list[TokenJob]) -> list[TokenJob]:
        """Completes the jobs, which must have equal `batch_key`. Raises no LLMError: a failed job has its `error`."""
        pending = jobs
        while pending:
            groups: dict[tuple[int, ...], list[TokenJob]] = {}
            for job in pending:
                groups.setdefault(job.limit_key, []).append(job)
            chunks = [
                group[start : start + self._largest]
                for group in groups.values()
                for start in range(0, len(group), self._largest)
            ]
            await asyncio.gather(*(self._request(chunk) for chunk in chunks))
            pending = [job for job in pending if job.error is None and job.finish_reason == "length" and job.room > 0]
        return jobs

    async def _request(self, jobs: list[TokenJob]) -> None:
        """One request for all jobs; their failures become their `error`."""
        if len(jobs) > 1 and not self.batches:
            await asyncio.gather(*(self._request([job]) for job in jobs))
            return
        try:
            with self.versions.request(jobs) as known_by:
                reply = await self._endpoint.post("/completions", self._body(jobs) | known_by)
            _read(reply, jobs, self._vocabulary)
            self._batch_succeeded |= len(jobs) > 1
        except EndpointError as error:
            if len(jobs) > 1 and error.status in REFUSED:
                await self._request_parts(jobs)
            else:
                _fail(jobs, overflow_from_message(error.detail) or error)
        except LLMError as error:
            _fail(jobs, error)
        except (LookupError, TypeError, ValueError) as error:
            _fail(jobs, LLMError(f"{self._endpoint.public_url} sent completions of unknown shape ({error})"))

    async def _request_parts(self, jobs: list[TokenJob]) -> None:
        """Sends a refused request again in halves, so that one bad prompt does not fail the others. If no batch has
        ever been accepted, sends the prompts one by one, and stays with that if it works."""
        if self._batch_succeeded:
            middle = len(jobs) // 2
            await asyncio.gather(self._request(jobs[:middle]), self._request(jobs[middle:]))
            return
        await asyncio.gather(*(self._request([job]) for job in jobs))
        if all(job.error is None for job in jobs):
            self.batches = False

    def _body(self, jobs: list[TokenJob]) -> dict[str, Any]:
        """The body of a request: prompts as ids, sampling, and what is asked back (ids, logprobs)."""
        sampling = jobs[0].sampling
        prompts = [job.prompt_ids + job.completion_ids for job in jobs]
        body = {
            "model": self._model,
            "prompt": prompts if len(jobs) > 1 else prompts[0],
            "max_tokens": min(job.room for job in jobs),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **NEUTRAL_SAMPLING,
            "stop": list(sampling.stop),
            "stop_token_ids": self._stop_ids,
            "seed": sampling.seed,
            "logprobs": 0,  # of the sampled token alone
            "return_token_ids": True,
            **sampling.extra,
        }
        return {name: value for name, value in body.items() if value is not None}


def _read(reply: dict[str, Any], jobs: list[TokenJob], vocabulary: int) -> None:
    """Adds one choice of the reply to each job. Raises LookupError, TypeError or ValueError before it changes any."""
    choices = sorted(reply["choices"], key=lambda choice: choice["index"])
    if len(choices) != len(jobs):
        raise ValueError(f"{len(choices)} choices for {len(jobs)} prompts")
    sampled = [(choice["token_ids"], _logprobs(choice, vocabulary)) for choice in choices]
    details = (reply.get("usage") or {}).get("prompt_tokens_details") or {}
    for job, choice, (token_ids, logprobs) in zip(jobs, choices, sampled, strict=True):
        if len(jobs) == 1 and not job.completion_ids:  # for many prompts vLLM reports only the last one's
            job.cached_tokens = details.get("cached_tokens") or 0
        job.completion_ids = job.completion_ids + token_ids
        job.logprobs = job.logprobs + logprobs
        job.room -= len(token_ids)
        job.finish_reason = choice["finish_reason"]
        if job.finish_reason == "abort":
            job.error = LLMError("the engine aborted the request")


def _logprobs(choice: dict[str, Any], vocabulary: int) -> list[float]:
    """Of each sampled token. Raises LookupError, TypeError or ValueError where a trainer could not use them or the
    token ids."""
    token_ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    if len(token_ids) != len(logprobs) or None in logprobs:
        raise ValueError("not one logprob for each sampled token")
    lowest, largest = min(token_ids, default=0), max(token_ids, default=0)
    if not set(map(type, token_ids)) <= {int} or not 0 <= lowest <= largest < vocabulary:
        raise ValueError("token ids that are none of its model")
    highest = max(logprobs, default=0.0)
    if not math.isfinite(sum(logprobs)) or highest > ROUNDING:
        raise ValueError("logprobs that are none")
    return logprobs if highest <= 0 else [min(0.0, logprob) for logprob in logprobs]


def _fail(jobs: list[TokenJob], error: LLMError) -> None:
    """Gives each job the error."""
    for job in jobs:
        job.error = error


async def probe_logprobs_mode(endpoint: Endpoint, model: str, prompt_ids: list[int]) -> str:
    """Measures whether the engine's logprobs are "processed_logprobs" (after temperature, as a trainer needs them)
    or "raw_logprobs", by sampling at two temperatures, since no route tells. Raises LLMError."""
    gaps = []
    for temperature in (1.0, 0.5):
        body = {"model": model, "prompt": prompt_ids, "max_tokens": 1, "logprobs": 2, "temperature": temperature}
        reply = await endpoint.post("/completions", body | NEUTRAL_SAMPLING | {"top_p": 1.0})
        try:
            top = sorted(reply["choices"][0]["logprobs"]["top_logprobs"][0].values(), reverse=True)
            gaps.append(top[0] - top[1])
        except (LookupError, TypeError) as error:
            raise LLMError(f"{endpoint.public_url} tells no logprobs ({json.dumps(str(error))})") from None
    return "processed_logprobs" if gaps[1] > 1.5 * gaps[0] else "raw_logprobs"
