"""Whether a vLLM has the same tokenizer as a model folder: every id of the vocabulary must mean the same text.

A teacher is given the policy's token ids. With another vocabulary its answers would be about other texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.runs.errors import ConfigError

IDS = 1024
"""Ids in one request to `/detokenize`."""


async def require_same_tokenizer(endpoint: Endpoint, model: str, folder: Path) -> None:
    """Asks for the text of the whole vocabulary of the tokenizer in `folder`, some ids at a time. `endpoint`: with
    `/v1`; `/detokenize` stands beside it. Raises ConfigError where the texts differ or the route is missing, and
    LLMError."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    root = endpoint.beside(endpoint.base_url.removesuffix("/v1"))
    try:
        for start in range(0, size, IDS):
            ids = list(range(start, min(start + IDS, size)))
            theirs = (await root.post("/detokenize", {"model": model, "tokens": ids}))["prompt"]
            if theirs != tokenizer.decode(ids):
                raise _other(f"ids {ids[0]:,} to {ids[-1]:,} mean another text", folder)
    except EndpointError as error:
        if error.status in (404, 405):
            raise ConfigError(
                f"teacher: {error.detail}: it must be a vLLM, whose route /detokenize is asked"
            ) from error
        raise _other(f"it refuses ids of the policy ({error.detail})", folder) from error
    except (LookupError, TypeError):
        raise ConfigError("teacher: /detokenize sent no text: it must be a vLLM") from None
    finally:
        await root.aclose()


def require_same_vocabulary(teacher: Path, student: Path) -> None:
    """The same of two folders. Raises ConfigError."""
    from transformers import AutoTokenizer

    ours, theirs = (AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (student, teacher))
    if ours != theirs:
        differing = len(ours.items() ^ theirs.items())
        raise _other(f"{differing:,} entries of their vocabularies differ", student)


def _other(why: str, folder: Path) -> ConfigError:
    return ConfigError(
        f"the teacher's tokenizer is not that of the policy ({folder.name}): {why}. It is given the policy's token "
        "ids, so both must have one vocabulary: take a teacher of the same family"
    )
