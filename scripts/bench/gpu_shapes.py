"""Models and samples of real shape with random content, for `gpu.py`: nothing is downloaded.

Qwen3's shapes are those of its published `config.json` files. Lengths are those of RLM rollouts: a tenth of the samples
are root conversations, the others sub-calls.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from rlm_env.train.learner.samples import Sample, SampleKind

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "vocab_size": 500,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
    "0.6B": {
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "4B": {
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}


def make_folder(shape: str, folder: Path, device: torch.device) -> Path:
    """A model folder with random bfloat16 weights, drawn on the device."""
    config = Qwen3Config(**SHAPES[shape], max_position_embeddings=65_536, tie_word_embeddings=True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config)
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    return folder


def rlm_lengths(total: int, *, tiny: bool = False, seed: int = 0) -> list[int]:
    """Lengths that fill `total` tokens: a tenth of 600 to 4,000, the others of 60 to 500; `tiny`: a twentieth."""
    draw, lengths, left = random.Random(seed), [], total
    while left > 0:
        length = draw.randint(600, 4000) if draw.random() < 0.1 else draw.randint(60, 500)
        length = min(max(4, length // 20) if tiny else length, left)
        lengths.append(length)
        left -= length
    return lengths


def group_samples(groups: int, size: int, prompt: int, own: int, vocab: int) -> list[Sample]:
    """Samples with random ids; the `size` of a group begin with the same `prompt` ids, and train their `own` ones."""
    draw = random.Random(0)
    samples = []
    for group in range(groups):
        common = [draw.randrange(vocab) for _ in range(prompt)]
        for member in range(size):
            ids = common + [draw.randrange(vocab) for _ in range(own)]
            logprobs = [0.0] * prompt + [-9.0] * own
            mask = [False] * prompt + [True] * own
            samples.append(Sample(ids, mask, logprobs, f"{group}/{member}", advantage=draw.choice((-1.0, 1.0))))
    return samples


def rlm_samples(total: int, vocab: int, *, tiny: bool = False, seed: int = 0) -> list[Sample]:
    """Samples with random ids, of which the last third is trained."""
    draw = random.Random(seed)
    samples = []
    for number, length in enumerate(rlm_lengths(total, tiny=tiny, seed=seed)):
        trained = max(1, length // 3) if length > 1 else 0
        mask = [False] * (length - trained) + [True] * trained
        kind = SampleKind.ROOT if length > (25 if tiny else 500) else SampleKind.SUB
        samples.append(
            Sample(
                [draw.randrange(vocab) for _ in range(length)],
                mask,
                [-9.0 if own else 0.0 for own in mask],
                f"rollout-{number}",
                kind=kind,
                advantage=draw.choice((-1.0, 1.0)),
            )
        )
    return samples
