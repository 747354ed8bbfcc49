"""The forward pass of a Hugging Face causal language model over a pack: the log-probability of every trained token."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from rlm_env.train.learner.attention import BY_SAMPLE, Layout
from rlm_env.train.learner.config import ModelError
from rlm_env.train.learner.logprobs import TokenLogprobs, token_logprobs
from rlm_env.train.learner.packing import Pack
from rlm_env.train.learner.tree_attention import Branches

UNSUPPORTED = (AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, TypeError)
"""What a model's own code raises where it is not built as the learner needs it."""


def pack_logprobs(
    model: nn.Module, pack: Pack, temperature: float | Tensor = 1.0, chunk: int | None = None
) -> TokenLogprobs:
    """Log-probabilities and entropies of a pack's tokens, both [tokens], 0 where the pack's mask is False.

    The head runs only at positions that predict a trained token. `temperature`: one value, or [tokens] (see
    `Pack.spread`); `chunk`: see `token_logprobs`.
    """
    hidden = last_hidden_state(model, pack.input_ids, pack.position_ids, pack.layout)[0]
    trained, tree = pack.trained, pack.tree
    targets, predictors = (trained, trained - 1) if tree is None else (tree.targets, tree.predictors)
    if isinstance(temperature, Tensor) and temperature.ndim:
        temperature = temperature[trained if tree is None else trained[tree.first]]
    found = token_logprobs(hidden[predictors], vocabulary_head(model), pack.input_ids[0, targets], temperature, chunk)
    if tree is not None:
        found = TokenLogprobs(*(part[tree.predicted] for part in found))
    return TokenLogprobs(*(part.new_zeros(len(pack)).index_put((trained,), part) for part in found))


def last_hidden_state(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor, boundaries: Layout | None = None
) -> Tensor:
    """The input of the vocabulary head, [1, tokens, width]. `input_ids` and `position_ids` are [1, tokens]; without
    `boundaries` they are one sample."""
    base = base_model(model)
    if isinstance(boundaries, Branches) and base.config._attn_implementation != BY_SAMPLE:
        raise ValueError(f"attention {base.config._attn_implementation!r} knows no trees; use {BY_SAMPLE!r}")
    # transformers hands further arguments down to every layer's attention, also where a layer is recomputed.
    more = {"boundaries": boundaries} if base.config._attn_implementation == BY_SAMPLE else {}
    # No attention mask and no cache: with either, transformers' own implementations let samples see each other.
    return base.get_decoder()(input_ids=input_ids, position_ids=position_ids, use_cache=False, **more).last_hidden_state


def vocabulary_head(model: nn.Module) -> Tensor:
    """The weight [vocab, width] of the model's head. Raises ModelError where the head is more than that matrix: with a
    bias, or under an adapter, whose gradient would be lost."""
    head = base_model(model).get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        name = type(base_model(model)).__name__
        what = "a Linear with a bias" if type(head) is nn.Linear else f"a {type(head).__name__}"
        raise ModelError(
            f"{name} cannot be trained: its vocabulary head is {what}, not one plain matrix; train another "
            "architecture, and keep adapters off the head"
        )
    return head.weight


def input_embeddings(model: nn.Module) -> nn.Embedding:
    return base_model(model).get_input_embeddings()


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of the decoder. Raises ModelError where it has no list of that name."""
    base = base_model(model)
    layers = getattr(base.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"{type(base).__name__}: its decoder has no list `layers`, which several processes and trainer.compile "
            "need; train it on one process, without compile"
        )
    return layers


def text_settings(model_config: Any) -> Any:
    """What a (Hugging Face) configuration says of the part that reads text, to look at. Where settings differ from
    layer to layer, as in Gemma 4, they are those of most layers."""
    text = model_config.get_text_config()
    if getattr(text, "is_heterogeneous", False):
        text = copy.copy(text)
        text.allow_global_per_layer_attribute_access = True  # without it transformers raises a RuntimeError
    return text


def unsupported(model: str, what: str, error: Exception) -> str:
    """What is said where transformers' own code of a model cannot do `what`."""
    reason = f"{type(error).__name__}: {error}"
    return (
        f"{model} cannot be trained: {what} fails ({reason}). Needed is a decoder that leaves attention to the "
        "implementation that is asked for and takes packs without a mask, as those of Qwen, Llama, Mistral, Gemma 3 "
        "and OLMo do; train another architecture"
    )


def base_model(model: nn.Module) -> Any:
    """The Hugging Face model itself, without a peft adapter around it."""
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()
