"""A supervised share: its gradient beside the policy's, the order of its samples, and a run that resumes to the bit."""

from __future__ import annotations

import json
import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pydantic import ValidationError  # noqa: E402

from rlm_env.cli import main  # noqa: E402
from rlm_env.rollout import write_rollouts  # noqa: E402
from rlm_env.train.learner.config import LossConfig  # noqa: E402
from rlm_env.train.learner.forward import pack_logprobs  # noqa: E402
from rlm_env.train.learner.model import load_model  # noqa: E402
from rlm_env.train.learner.packing import collate  # noqa: E402
from rlm_env.train.learner.sample_files import write_samples  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from rlm_env.train.report.metrics import read_metrics  # noqa: E402
from rlm_env.train.rl.config import TrainConfig  # noqa: E402
from rlm_env.train.rl.supervised import supervised_share  # noqa: E402
from rlm_env.train.rl.supervised_config import SupervisedConfig  # noqa: E402
from tests.packages import needs  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402
from tests.train.learner.test_learner import FLOAT32, distance, gradients, learner, make_samples, with_  # noqa: E402
from tests.train.sft.test_chosen import text_rollout  # noqa: E402

needs("peft")

STEPS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small", hidden=32, layers=2, window=512)


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    """Four good ones and a bad one; each has a sample of the root and one of a sub-call."""
    path = tmp_path_factory.mktemp("teacher") / "rollouts.jsonl"
    made = [text_rollout(f"r{i}", f"t{i}", last=f"{i}\n```repl\nanswer['ready'] = True\n```") for i in range(4)]
    write_rollouts(path, [*made, text_rollout("bad", "t9", score=0.0)])
    return path


def config(model, rollouts, out, **supervised):
    values = {
        "model": str(model),
        "out": str(out),
        "steps": STEPS,
        "environments": [{"name": "needle-rlm"}],
        "trainer": {"dtype": "float32", "device": "cpu", "pack_tokens": 512, "threads": 1},
        "optimizer": {"lr": 1e-3},
        "checkpoint": {"every": 2},
        "supervised": {"rollouts": [str(rollouts)], "per_step": 3, "weight": 0.5, **supervised},
    }
    return TrainConfig.model_validate(values)


@pytest.mark.parametrize("preset", ["prime", "gspo"])
def test_the_gradient_is_that_of_the_policy_and_of_the_mean_likelihood(model, preset):
    """Whatever the packs, and whatever stands in the supervised samples' advantages and behavior logprobs."""
    samples, others, loss = make_samples(), make_samples(5, seed=3), LossConfig(preset=preset)
    for sample in others:
        sample.advantage, sample.behavior_logprobs, sample.weight = 0.0, [-900.0] * len(sample), 1.0
    alone, policy = gradients(learner(model, FLOAT32, loss), samples)
    plain = load_model(model, FLOAT32)
    total = torch.zeros(())
    for sample in others:
        pack = collate([sample])
        total = total - pack_logprobs(plain, pack, sample.temperature).logprobs[pack.mask].sum()
    mean = total / sum(sample.trained_tokens for sample in others)
    mean.backward()
    expected = {
        f"model.{name}": policy[f"model.{name}"] + 0.3 * parameter.grad for name, parameter in plain.named_parameters()
    }
    for settings in ({}, {"pack_tokens": 50}):
        found = learner(model, with_(**settings), loss)
        step = found.step
        found.step = lambda given, step=step: step(given, others, 0.3)
        metrics, both = gradients(found, samples)
        assert distance(both, expected) < 1e-4
        assert metrics["supervised/loss"] == pytest.approx(mean.item(), rel=1e-5)
        assert metrics["loss"] == pytest.approx(alone["loss"] + 0.3 * mean.item(), rel=1e-4)
        assert metrics["supervised/trained_tokens"] == sum(sample.trained_tokens for sample in others)
        assert metrics["mismatch_kl"] == pytest.approx(alone["mismatch_kl"], rel=1e-5)  # of the policy's samples alone
        assert metrics["trained_tokens"] == alone["trained_tokens"]


def test_the_samples_are_those_of_sft_and_go_round_in_a_seeded_order(model, rollouts, tmp_path):
    share = supervised_share(config(model, rollouts, tmp_path), model)
    samples = share.chosen.samples
    assert len(samples) == 8
    assert {sample.rollout_id for sample in samples} == {f"r{i}" for i in range(4)}
    drawn = [id(sample) for step in range(16) for sample in share.batch(step)]
    assert all(len(share.batch(step)) == 3 for step in range(16))
    rounds = [drawn[first : first + 8] for first in range(0, 48, 8)]
    assert all(set(each) == set(map(id, samples)) for each in rounds)
    assert rounds[0] != rounds[1]
    again = supervised_share(config(model, rollouts, tmp_path), model)
    assert [[s.token_ids for s in again.batch(step)] for step in range(9)] == [
        [s.token_ids for s in share.batch(step)] for step in range(9)
    ]
    root_alone = config(model, rollouts, tmp_path).model_dump() | {"samples": {"train_sub_calls": False}}
    assert len(supervised_share(TrainConfig.model_validate(root_alone), model).chosen.samples) == 4
    assert len(supervised_share(config(model, rollouts, tmp_path, train_root=False), model).chosen.samples) == 4
    assert supervised_share(TrainConfig.model_validate({**root_alone, "supervised": None}), model) is None


def test_a_step_has_its_share_where_there_are_fewer_samples(model, rollouts, tmp_path):
    share = supervised_share(config(model, rollouts, tmp_path, per_step=20), model)
    assert [len(share.batch(step)) for step in range(3)] == [20, 20, 20]
    assert {id(sample) for sample in share.batch(0)} == set(map(id, share.chosen.samples))


def test_it_says_what_is_left_out(model, rollouts, tmp_path):
    share = supervised_share(config(model, rollouts, tmp_path, keep={"min_score": 0.5}), model)
    assert share.describe().startswith("8 samples of 4 of 5 rollouts (left out: ")


@pytest.fixture
def command(model, rollouts, tmp_path):
    """Runs from saved samples, with a supervised share."""
    chance = random.Random(0)
    for step in range(1, STEPS + 1):
        ids = [[chance.randrange(300) for _ in range(9)] for _ in range(4)]
        mask, behavior = [False, *[True] * 8], [0.0, *[-4.0] * 8]
        made = [Sample(i, mask, behavior, str(n), advantage=chance.random() - 0.5) for n, i in enumerate(ids)]
        write_samples(tmp_path / "samples", step, made)

    def run(out, *settings):
        values = config(model, rollouts, tmp_path / out).as_toml()
        path = tmp_path / f"{out}.toml"
        path.write_text(_toml(values))
        return main(["train", str(path), "--from-samples", str(tmp_path / "samples"), *settings])

    return run


def _toml(values):
    import tomli_w

    return tomli_w.dumps(values)


def test_a_run_that_was_stopped_goes_on_to_the_bit_and_only_with_the_same_rollouts(command, rollouts, tmp_path, capsys):
    assert command("whole") == 0
    assert command("parts", "--set", "steps=3") == 0
    assert command("parts", "--resume") == 0
    lines = [read_metrics(tmp_path / out / "metrics.jsonl") for out in ("whole", "parts")]
    facts = ("step", "loss", "supervised/loss", "grad_norm")
    assert [[line[fact] for fact in facts] for line in lines[0]] == [
        [line[fact] for fact in facts] for line in lines[1]
    ]
    assert len({line["supervised/loss"] for line in lines[0]}) == STEPS
    weights = [(tmp_path / out / "model" / "model.safetensors").read_bytes() for out in ("whole", "parts")]
    assert weights[0] == weights[1]
    kept = rollouts.read_text()
    try:
        rollouts.write_text("".join(line + "\n" for line in kept.splitlines() if json.loads(line)["id"] != "r1"))
        assert command("parts", "--resume") == 2
    finally:
        rollouts.write_text(kept)
    assert "began with other supervised rollouts" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_trained_is_refused_by_name(model, rollouts, tmp_path, capsys):
    for settings, message in (
        ({"rollouts": []}, "rollouts"),
        ({"weight": 0}, "greater than 0"),
        ({"per_step": 0}, "per_step"),
        ({"files": ["x"]}, "files"),
    ):
        with pytest.raises(ValidationError, match=message):
            SupervisedConfig(**{"rollouts": ["r"], **settings})
    path = tmp_path / "run.toml"
    path.write_text(_toml(config(model, rollouts, tmp_path / "out").as_toml()))
    for setting, message in (
        ("supervised.rollouts=['nowhere.jsonl']", "supervised.rollouts: nowhere.jsonl cannot be read"),
        ("supervised.keep.min_turns=9", "none of the 5 rollouts is left to train (fewer than 9 turns: 4"),
        ("supervised.keep.min_score=2", "supervised.keep.min_score"),
        ("supervised.weigth=1", "unknown key 'supervised.weigth'; did you mean 'weight'"),
    ):
        assert main(["train", str(path), "--dry-run", "--set", setting]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    off = ["--set", "supervised.train_root=false", "--set", "samples.train_sub_calls=false"]
    assert main(["train", str(path), "--dry-run", *off]) == 2
    assert "supervised.train_root and samples.train_sub_calls are both off" in capsys.readouterr().err
    assert main(["train", str(path), "--dry-run", "--set", "rollout.prompt=tiny"]) == 0
    assert "3 supervised samples a step" in " ".join(capsys.readouterr().out.split())
