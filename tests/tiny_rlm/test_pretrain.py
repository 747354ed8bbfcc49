"""The supervised training of tiny-rlm: it learns, it goes on where it was interrupted, and draws by weight."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from tiny_rlm.pretrain import Stream, TrainConfig, train
from tiny_rlm.shape import new_model
from tiny_rlm.tokenizer import train_tokenizer

EXAMPLES = [([5 + i, 40, 41 + i, 42], [False, False, True, True]) for i in range(8)]
STREAMS = {"roots": Stream([EXAMPLES[:4], EXAMPLES[4:]], [1.0, 1.0], 6, 0.2), "subs": Stream([EXAMPLES], [1.0], 3)}
STAGES = [STREAMS, {**STREAMS, "subs": Stream([EXAMPLES], [1.0], 3, by_conversation=True)}]
CONFIG = TrainConfig(steps=6, warmup=2, checkpoint_every=2, piece=8)


@pytest.fixture
def model():
    return new_model(train_tokenizer(["a few words"], vocab_size=300, window=64), 64, seed=0)


class Interrupted(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_weights(model, tmp_path):
    def stop(step: int, losses: dict[str, float]) -> None:
        if step == 4:
            raise Interrupted

    other = type(model)(model.config)
    other.load_state_dict(model.state_dict())
    again = type(model)(model.config)
    whole = train(model, STAGES, CONFIG, 3, tmp_path / "whole.pt")
    with pytest.raises(Interrupted):
        train(other, STAGES, CONFIG, 3, tmp_path / "cut.pt", stop)
    seen: list[int] = []
    resumed = train(again, STAGES, CONFIG, 3, tmp_path / "cut.pt", lambda step, losses: seen.append(step))
    assert seen == [4, 5]
    assert resumed == whole
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_it_learns(model, tmp_path):
    losses = train(model, STAGES, TrainConfig(steps=30, warmup=5), 0, tmp_path / "c.pt")
    assert losses[-1]["roots"] < 0.3 * losses[0]["roots"]


def test_a_stream_draws_its_groups_by_weight():
    stream = Stream([EXAMPLES[:1], EXAMPLES[1:]], [3.0, 1.0], per_step=4000)
    drawn = stream.draw(np.random.default_rng(0))
    assert len(drawn) == 4000
    assert abs(drawn.count(EXAMPLES[0]) / 4000 - 0.75) < 0.05
