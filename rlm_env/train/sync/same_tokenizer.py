"""Whether a vLLM has the same tokenizer as a model folder: every id of the vocabulary must mean the same text.

Engines and teachers are given the policy's token ids, never text. With another vocabulary they would read other texts,
which no later check of log-probabilities can be counted on to find.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.runs.errors import ConfigError

IDS = 1024
"""Ids in one request to `/detokenize`."""


async def require_same_tokenizer(root: Endpoint, model: str, folder: Path, who: str, remedy: str) -> None:
    """Asks a vLLM for the text of the whole vocabulary of the tokenizer in `folder`, some ids at a time.

    `root`: without `/v1`; `model`: the model's name there; `who` and `remedy`: of the message, which says what is
    wrong. Raises ConfigError where a text differs or the server does not tell, and LLMError where nothing answers.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    for start in range(0, size, IDS):
        ids = list(range(start, min(start + IDS, size)))
        which = f"ids {ids[0]:,} to {ids[-1]:,}"
        try:
            theirs = (await root.post("/detokenize", {"model": model, "tokens": ids}))["prompt"]
        except EndpointError as error:
            if error.status in (400, 422):
                raise _other(who, folder, f"it refuses {which} ({error.detail})", remedy) from error
            raise ConfigError(
                f"{who} does not say which text token ids mean: {error.detail}; it must be a vLLM, whose route "
                "/detokenize is asked"
            ) from error
        except (LookupError, TypeError):
            raise ConfigError(f"{who} is no vLLM: its route /detokenize sent no text") from None
        if theirs != tokenizer.decode(ids):
            raise _other(who, folder, f"{which} mean another text there", remedy)


def require_same_vocabulary(other: Path, folder: Path, who: str, remedy: str) -> None:
    """The same of two folders. Raises ConfigError."""
    from transformers import AutoTokenizer

    ours, theirs = (AutoTokenizer.from_pretrained(each).get_vocab() for each in (folder, other))
    if ours != theirs:
        differing = len(ours.items() ^ theirs.items())
        raise _other(who, folder, f"{differing:,} entries of their vocabularies differ", remedy)


def _other(who: str, folder: Path, why: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"{who} has another tokenizer than {folder.name}: {why}. It is given the policy's token ids, so both must have "
        f"one vocabulary: {remedy}"
    )
