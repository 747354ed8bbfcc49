"""A causal language model over a pack: the log-probability of every trained token.

Covered: Hugging Face models, also under a peft adapter. Not covered: what the log-probabilities are for.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rlm_env.train.learner.logprobs import TokenLogprobs, token_logprobs
from rlm_env.train.learner.packing import Pack


def pack_logprobs(
    model: nn.Module, pack: Pack, temperature: float | Tensor = 1.0, chunk: int | None = None
) -> TokenLogprobs:
    """Log-probabilities and entropies of a pack's tokens, both [tokens], 0 where the pack's mask is False.

    The head is applied only where a trained token is predicted, by the token before it. `temperature`: one for all
    or [tokens] (`Pack.spread`); `chunk`: see `token_logprobs`.
    """
    hidden = last_hidden_state(model, pack.input_ids, pack.position_ids)[0]
    trained = pack.mask.nonzero()[:, 0]
    if isinstance(temperature, Tensor) and temperature.ndim:
        temperature = temperature[trained]
    found = token_logprobs(hidden[trained - 1], vocabulary_head(model), pack.input_ids[0, trained], temperature, chunk)
    return TokenLogprobs(*(part.new_zeros(len(pack)).index_put((trained,), part) for part in found))


def last_hidden_state(model: nn.Module, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """[1, tokens, width]: what the vocabulary head is given. Both arguments are [1, tokens]."""
    decoder = _language_model(model).get_decoder()
    # Position ids only: with an attention mask or a cache, transformers lets samples see the samples before them.
    return decoder(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state


def vocabulary_head(model: nn.Module) -> Tensor:
    """The weight [vocab, width] of the model's head. Raises ValueError where there is more to it: a bias, or an
    adapter, whose gradient would be lost."""
    head = _language_model(model).get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ValueError(
            f"{type(model).__name__} cannot be trained: its vocabulary head is a {type(head).__name__}, not one plain "
            "matrix; keep adapters off the head"
        )
    return head.weight


def _language_model(model: nn.Module) -> Any:
    """The model under a peft adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
