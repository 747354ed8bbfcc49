"""The tokens of a rollout as training sees them: samples, with what was sampled, its log-probabilities, the mask.

The texts of tokens need the package `tokenizers` (extra `[tokens]`) and the model's folder; without, ids are shown.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from rlm_env.evals.outline import outline_of
from rlm_env.train.learner.config import SamplesConfig
from rlm_env.train.learner.samples import Sample, recorded_samples

PAGE = 4_000
"""Tokens of a sample that are sent at once."""


def samples_of(record: dict[str, Any], config: SamplesConfig | None = None) -> list[Sample]:
    """The samples of a stored rollout. Raises ValueError where it has no token ids."""
    return recorded_samples(outline_of(record, tokens=True), config)


def sample_list(samples: list[Sample]) -> list[dict[str, Any]]:
    """What each sample is, without its tokens."""
    return [
        {
            "kind": sample.kind.value,
            "tokens": len(sample),
            "trained": sample.trained_tokens,
            "logprob": sum(sample.behavior_logprobs) / max(sample.trained_tokens, 1),
            "weight": sample.weight,
            "temperature": sample.temperature,
            "version": sample.policy_version,
        }
        for sample in samples
    ]


def token_page(sample: Sample, start: int, model: Path | None) -> dict[str, Any]:
    """Tokens from `start` on, as many as fit a page: ids, texts (None without a tokenizer), and log-probabilities, None
    where a token was not sampled."""
    ids = sample.token_ids[start : start + PAGE]
    mask = sample.mask[start : start + PAGE]
    logprobs = sample.behavior_logprobs[start : start + PAGE]
    tokenizer = None if model is None else _tokenizer(model)
    return {
        "start": start,
        "total": len(sample),
        "ids": ids,
        "texts": None if tokenizer is None else [tokenizer.decode([id], skip_special_tokens=False) for id in ids],
        "logprobs": [round(value, 4) if kept else None for value, kept in zip(logprobs, mask, strict=True)],
    }


@lru_cache(maxsize=4)
def _tokenizer(model: Path) -> Any:
    """The tokenizer of a model folder; None without one, or without the package."""
    try:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(model / "tokenizer.json"))
    except Exception:  # the package raises its own, bare ones
        return None
