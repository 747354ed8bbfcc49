"""tiny-rlm's first weights: it copies before it has learned anything, and differs with the seed."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from tiny_rlm.shape import BACK, new_model
from tiny_rlm.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a few words"] * 3, vocab_size=400, window=2048)


@pytest.fixture(scope="module")
def model(tokenizer):
    return new_model(tokenizer, 2048, seed=0).eval()


def repeated(length: int, between: int) -> tuple[torch.Tensor, int]:
    """Token ids [1, tokens] in which the first `length` come again behind some others, and where they do."""
    draw = torch.Generator().manual_seed(length)
    first, other = (torch.randint(5, 260, (1, n), generator=draw) for n in (length, between))
    return torch.cat([first, other, first], 1), length + between


@pytest.mark.parametrize(("length", "between"), [(40, 10), (40, 900), (300, 50)])
def test_it_copies_what_stood_before_at_any_distance(model, length, between):
    ids, again = repeated(length, between)
    with torch.inference_mode():
        guessed = model(ids).logits[0].argmax(-1)
    settled = again + len(BACK)
    right = guessed[settled:-1] == ids[0, settled + 1 :]
    assert right.float().mean() > 0.9


def test_its_heads_that_look_back_see_the_tokens_before(tokenizer):
    model = new_model(tokenizer, 2048, seed=1)
    model.set_attn_implementation("eager")
    ids, _ = repeated(30, 5)
    with torch.inference_mode():
        seen = model.model(ids, output_attentions=True).attentions[0][0]
    for head, offset in enumerate(BACK):
        assert seen[head].diagonal(-offset).mean() > 0.9


def test_the_seed_decides_the_weights(model, tokenizer):
    same, other = (new_model(tokenizer, 2048, seed) for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not torch.equal(model.model.embed_tokens.weight, other.model.embed_tokens.weight)
