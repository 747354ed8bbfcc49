"""How completions are really sampled where verifiers has the last word, so that the record says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import verifiers.v1 as vf

from rlm_env.llm.base import Sampling

OWN = frozenset(Sampling.model_fields) - {"extra"}


def effective_sampling(ctx: vf.ModelContext, own: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling of one role as fields of `Sampling`. `own`: what the harness was configured with.

    What the run sets wins: verifiers writes it over every request. With the client `train`, nothing but what the run
    sets reaches the engine, so `own` counts for nothing. Raises ValueError there if the run sets no `max_tokens`: vLLM
    would end each reply after 16 tokens.
    """
    run = ctx.sampling.model_dump(exclude_none=True)
    known = {name: value for name, value in run.items() if name in OWN}
    if isinstance(known.get("stop"), str):
        known["stop"] = [known["stop"]]
    extra = {name: value for name, value in run.items() if name not in OWN}
    if isinstance(ctx.client, vf.TrainClientConfig):
        if "max_tokens" not in known:
            raise ValueError(
                "sampling.max_tokens is not set (max_completion_tokens in prime-rl): with the client `train`, vLLM "
                "would end each reply after 16 tokens"
            )
        return {**known, "extra": extra}
    return {**own, **known, "extra": {**own.get("extra", {}), **extra}}
