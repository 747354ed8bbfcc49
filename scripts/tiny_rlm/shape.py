"""tiny-rlm's architecture and first weights: a small Qwen3 that can copy before it has learned anything.

Copying what stands earlier in the window takes two layers that find each other, which costs a small model most of its
training. So its first weights are random only for the rest: three heads of layer 0 attend one, two and three tokens
back and write what stands there into a part of the hidden state of their own, and three heads of layer 1 attend to
places whose last three tokens are the current ones, and copy what followed (induction). Training goes on from there,
and may change all of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tiny_rlm.tokenizer import END_OF_TURN, PAD

HIDDEN, HEAD, LAYERS = 192, 32, 4
"""vLLM's CPU attention supports no smaller head than 32."""
TOKEN = HIDDEN // 2
"""The first dimensions hold the token itself, the last of them a constant; the others, what stands before it."""
BACK = (1, 2, 3)
"""Offsets of the heads that look back; each has `HEAD` of the other dimensions."""
THETA = 1e7
PAIRS = HEAD // 2
"""Of dimensions that rotary embeddings turn: pair `i` has the dimensions `i` and `PAIRS + i`."""
FAST = (1.0, 1.0, 1.0, 0.7, 0.5)
"""Weights of the pairs that turn fastest, by which the heads of layer 0 tell offsets apart."""
SLOW = [*range(8, PAIRS), *range(PAIRS + 8, HEAD)]
"""Dimensions that turn so slowly that tokens match at any distance within the window."""
MATCHED = (slice(0, 6), slice(6, 11), slice(11, 16))
"""Parts of `SLOW` that compare the current token, the one before it, and the one before that."""
MATCH_WEIGHT = (1.3, 1.0, 0.8)
LOOK_BACK_SHARPNESS, MATCH_SHARPNESS = 2.2, 2.6
"""Weights of the norms of queries and keys in layers 0 and 1."""
WRITTEN, COPIED, QUIET = 0.15, 0.6, 0.05
"""Sizes of what looking back and copying write, and of the random rest of what a layer adds."""


def new_model(tokenizer: PreTrainedTokenizerFast, window: int, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 of 1.8 million parameters with its first weights, float32."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // HEAD,
        num_key_value_heads=HIDDEN // HEAD,
        head_dim=HEAD,
        max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        bos_token_id=None,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        _random_weights(model)
        code = _directions(HEAD, TOKEN - 1)
        _look_back(model.model.layers[0].self_attn, code)
        _induction(model.model.layers[1].self_attn, code)
    return model


def _random_weights(model: Qwen3ForCausalLM) -> None:
    """Preserves the variance within a layer, and lets layers add little."""
    for name, weight in model.model.layers.named_parameters():
        if weight.ndim == 2:
            quiet = QUIET if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            weight.normal_(std=quiet * weight.shape[1] ** -0.5)
    embedding = model.model.embed_tokens.weight
    embedding.zero_()
    embedding[:, : TOKEN - 1].normal_(std=(TOKEN - 1) ** -0.5)
    embedding[:, TOKEN - 1] = 0.5


def _directions(rows: int, columns: int) -> Tensor:
    """Random orthonormal rows."""
    return torch.linalg.qr(torch.randn(columns, rows))[0].T


def _place(index: int) -> slice:
    """Where the hidden state holds the token at offset `BACK[index]`."""
    return slice(TOKEN + index * HEAD, TOKEN + (index + 1) * HEAD)


def _look_back(attention: torch.nn.Module, code: Tensor) -> None:
    """Queries and keys of the first heads are constants, turned against each other by the head's offset; what is
    written is the token's code."""
    attention.q_norm.weight.fill_(LOOK_BACK_SHARPNESS)
    attention.k_norm.weight.fill_(LOOK_BACK_SHARPNESS)
    for head, offset in enumerate(BACK):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        for projection, turned in ((attention.q_proj.weight, 0), (attention.k_proj.weight, offset)):
            projection[rows] *= 0.02
            for pair, weight in enumerate(FAST):
                angle = turned * THETA ** (-pair / PAIRS)
                projection[rows.start + pair, TOKEN - 1] += weight * math.cos(angle)
                projection[rows.start + PAIRS + pair, TOKEN - 1] += weight * math.sin(angle)
        attention.v_proj.weight[rows] = 0.0
        attention.v_proj.weight[rows, : TOKEN - 1] = code
        attention.o_proj.weight[_place(head), rows] += WRITTEN * torch.eye(HEAD)


def _induction(attention: torch.nn.Module, code: Tensor) -> None:
    """The first heads match three tokens; together they copy the whole token that followed, a third each."""
    attention.q_norm.weight.fill_(MATCH_SHARPNESS)
    attention.k_norm.weight.fill_(MATCH_SHARPNESS)
    for head in range(len(BACK)):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        query, key = torch.zeros(HEAD, HIDDEN), torch.zeros(HEAD, HIDDEN)
        for back, (part, weight) in enumerate(zip(MATCHED, MATCH_WEIGHT, strict=True)):
            seen = weight * _directions(len(SLOW[part]), HEAD)
            if back == 0:
                query[SLOW[part], : TOKEN - 1] = seen @ code
            else:
                query[SLOW[part], _place(back - 1)] = seen / (5 * WRITTEN)
            key[SLOW[part], _place(back)] = seen / (5 * WRITTEN)
        for projection, made in ((attention.q_proj.weight, query), (attention.k_proj.weight, key)):
            projection[rows] = 0.05 * projection[rows] + made
        third = torch.arange(head * HEAD, min((head + 1) * HEAD, TOKEN - 1))
        attention.v_proj.weight[rows] = 0.0
        attention.v_proj.weight[third, third] = 1.0
        attention.o_proj.weight[third, third] += COPIED
