"""Supervised training on saved rollouts: the loss, the order of samples, a run from files to a model, resuming it."""

import asyncio
import json
import os
import shutil
import signal
import time
from itertools import islice

import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

import rlm_env  # noqa: E402
from rlm_env.cli import main  # noqa: E402
from rlm_env.rollout import write_rollouts  # noqa: E402
from rlm_env.runs.errors import ConfigError, RunStopped  # noqa: E402
from rlm_env.runs.folder import read_summary  # noqa: E402
from rlm_env.task import Task  # noqa: E402
from rlm_env.train.learner.config import (  # noqa: E402
    LossConfig,
    ModelConfig,
    OptimizerConfig,
)
from rlm_env.train.learner.learner import Learner  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from rlm_env.train.report.metrics import read_metrics  # noqa: E402
from rlm_env.train.sft import trainer as sft_module  # noqa: E402
from rlm_env.train.sft.config import SFTConfig  # noqa: E402
from rlm_env.train.sft.trainer import Plan, sft  # noqa: E402
from tests.stubs import StubLLM, fenced, script  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402

QUIET = Console(quiet=True)
PT = {"format": "pt"}
"""What transformers wants to be noted of a weight file."""


class Counting(rlm_env.Environment):
    def tasks(self, split):
        for lines in range(2, 12):
            yield Task(question=f"How many lines end in {lines}?", context="a\n" * lines, gold=str(lines), info={})

    def score(self, task, rollout):
        return float(rollout.answer == task.gold)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "student", hidden=64, layers=2)


async def play():
    """Rollouts of a text-only teacher in the real REPL: half of them right."""
    env = rlm_env.RLMEnv(Counting(), rlm_env.RLMConfig(prompt="tiny", action="fence", max_turns=3))
    code = 'labels = llm_batch(context.split())\nanswer["content"] = str({count})\nanswer["ready"] = True'
    found = []
    async with env:
        for task in islice(env.tasks("train"), 10):
            for count in ('context.count("\\n")', "0"):
                teacher = script(fenced("print(context[:3])"), fenced(code.format(count=count)))
                rollout = await env.rollout(task, teacher, StubLLM(lambda messages: "word"))
                rollout.score = rlm_env.Score(env.environment.score(task, rollout))
                found.append(rollout)
    return found


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "rollouts.jsonl"
    write_rollouts(path, asyncio.run(play()))
    return path


def config_of(student, rollouts, out, **settings):
    values = {
        "model": str(student),
        "rollouts": [str(rollouts)],
        "out": out,
        "epochs": 2,
        "batch_size": 8,
        "held_out": 0.2,
        "held_out_every": 10,
        "trainer": {"dtype": "float32", "device": "cpu", "pack_tokens": 2048, "threads": 1},
        "optimizer": {"lr": 3e-3},
        "checkpoint": {"every": 4},
    }
    return SFTConfig.model_validate({**values, **settings})


def test_a_step_is_the_cross_entropy_that_transformers_computes(student):
    generator = torch.Generator().manual_seed(0)
    samples = []
    for size in (9, 5, 14):
        ids = torch.randint(300, (size,), generator=generator).tolist()
        samples.append(Sample(ids, [place > size // 2 for place in range(size)], [0.0] * size, "r", advantage=1.0))
    model = AutoModelForCausalLM.from_pretrained(student)
    total = 0.0
    for sample in samples:
        labels = torch.tensor([t if own else -100 for t, own in zip(sample.token_ids, sample.mask, strict=True)])[None]
        loss = model(torch.tensor([sample.token_ids]), labels=labels).loss
        total += loss.item() * sample.trained_tokens
    settings = ModelConfig(dtype="float32", device="cpu", pack_tokens=32)
    learner = Learner(student, settings, OptimizerConfig(lr=1e-3), LossConfig(preset="sft"), 1)
    values = learner.step(samples)
    assert values["loss"] == pytest.approx(total / sum(sample.trained_tokens for sample in samples), rel=1e-5)


def test_each_sample_is_trained_once_an_epoch_in_an_order_of_its_own(student, tmp_path):
    samples = [Sample([0, index], [False, True], [0.0, 0.0], str(index)) for index in range(10)]
    plan = Plan(samples, config_of(student, "x", tmp_path, batch_size=4, epochs=3))
    assert (plan.steps_per_epoch, plan.steps) == (3, 9)
    epochs = [[r.rollout_id for step in range(3 * e, 3 * e + 3) for r in plan.batch(step)] for e in range(3)]
    assert all(sorted(epoch) == sorted(str(i) for i in range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert Plan(samples, config_of(student, "x", tmp_path, batch_size=4, epochs=3, max_steps=5)).steps == 5
    other = Plan(samples, config_of(student, "x", tmp_path, batch_size=4, epochs=3, seed=1))
    assert [sample.rollout_id for sample in other.batch(0)] != [sample.rollout_id for sample in plan.batch(0)]


def test_from_a_teachers_rollouts_to_a_model_that_says_the_same(student, rollouts, tmp_path):
    model = sft(config_of(student, rollouts, tmp_path / "run", epochs=3), QUIET)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    evals = [line for line in lines if "eval/loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert evals[0]["step"] == 0
    assert evals[-1]["step"] == len(steps)
    assert evals[-1]["eval/loss"] < evals[0]["eval/loss"] / 2  # of tasks that were not trained
    assert {"eval/root/loss", "eval/sub/loss", "epoch"} <= {key for line in lines for key in line}
    assert not any("ratio" in key or "mismatch" in key for line in steps for key in line)
    changed = load_file(model / "model.safetensors")
    before = load_file(student / "model.safetensors")
    assert changed.keys() == before.keys()
    assert any(not torch.equal(changed[name], before[name]) for name in changed)
    assert (model / "tokenizer.json").is_file()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "complete"
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        sft(config_of(student, rollouts, tmp_path / "run", epochs=3), QUIET)


def test_a_run_that_was_stopped_goes_on_to_the_bit(student, rollouts, tmp_path, monkeypatch):
    whole = sft(config_of(student, rollouts, tmp_path / "whole", max_steps=7), QUIET)

    class Interrupted(Learner):
        def step(self, samples):
            if self.version == 5:  # one step after a checkpoint
                raise KeyboardInterrupt
            return super().step(samples)

    monkeypatch.setattr(sft_module, "Learner", Interrupted)
    config = config_of(student, rollouts, tmp_path / "parts", max_steps=7)
    with pytest.raises(KeyboardInterrupt):
        sft(config, QUIET)
    monkeypatch.undo()
    assert not (tmp_path / "parts" / "model").exists()
    parts = sft(config, QUIET, resume=True)
    assert load_file(parts / "model.safetensors").keys() == load_file(whole / "model.safetensors").keys()
    for name, tensor in load_file(whole / "model.safetensors").items():
        assert torch.equal(load_file(parts / "model.safetensors")[name], tensor), name
    printed = [
        [
            {key: value for key, value in line.items() if not key.startswith(("seconds", "perf"))}
            for line in read_metrics(tmp_path / run / "metrics.jsonl")
        ]
        for run in ("whole", "parts")
    ]
    assert printed[0] == printed[1]


def test_ctrl_c_in_the_midst_of_a_step_costs_nothing(student, rollouts, tmp_path, monkeypatch):
    class Slow(Learner):
        def step(self, samples):
            if self.version == 1:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)  # the main thread is told meanwhile
            return super().step(samples)

    monkeypatch.setattr(sft_module, "Learner", Slow)
    config = config_of(student, rollouts, tmp_path / "run", max_steps=3)
    with pytest.raises(KeyboardInterrupt):
        sft(config, QUIET)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000002"]
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        sft(config, QUIET)
    sft(config, QUIET, resume=True)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]


def test_a_run_that_is_begun_anew_measures_its_own_weights(student, rollouts, tmp_path, monkeypatch):
    """The run before had measured its own, and was stopped before it had a checkpoint."""

    def killed(*_):
        raise RuntimeError("killed")

    shutil.copytree(student, tmp_path / "other")
    weights = load_file(student / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, tmp_path / "other" / "model.safetensors", PT)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            sft(config_of(tmp_path / "other", rollouts, tmp_path / "run", max_steps=1), QUIET)
    (before,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    sft(config_of(student, rollouts, tmp_path / "run", max_steps=1), QUIET)
    own = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]
    assert before["step"] == own["step"] == 0
    assert abs(before["eval/loss"] - own["eval/loss"]) > 0.01


def test_a_run_whose_last_step_was_not_applied_is_never_complete(student, rollouts, tmp_path):
    """The first step throws the weights so far that the second one has no finite gradient."""
    config = config_of(student, rollouts, tmp_path / "out", max_steps=2, optimizer={"lr": 1e30})
    for resume in (False, True):
        with pytest.raises(RunStopped, match=r"gradients of the last 1 steps .* No trained model was written"):
            sft(config, QUIET, resume=resume)
        assert read_summary(tmp_path / "out") == {"status": "gradients not finite", "steps": 2}
    assert not (tmp_path / "out" / "model").exists()


def test_a_run_is_not_resumed_on_other_data(student, rollouts, tmp_path):
    data = tmp_path / "data.jsonl"
    shutil.copy(rollouts, data)
    config = config_of(student, data, tmp_path / "run", max_steps=2)
    sft(config, QUIET)
    with pytest.raises(ConfigError, match="epochs was 2, is now 3"):
        sft(config_of(student, data, tmp_path / "run", max_steps=2, epochs=3), QUIET, resume=True)
    data.write_text("".join(rollouts.read_text().splitlines(keepends=True)[:-4]))
    with pytest.raises(ConfigError, match="other rollouts"):
        sft(config, QUIET, resume=True)


def test_the_command_says_what_is_kept_and_what_is_wrong(student, rollouts, tmp_path, capsys):
    command = ["sft", "--model", str(student), "--rollouts", str(rollouts), "--out", str(tmp_path / "run")]
    small = ["--set", "trainer.dtype=float32", "--set", "trainer.pack_tokens=2048"]
    assert main([*command, *small, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for line in ("rollouts read", "dropped, score below 1", "of them encoded from text", "memory"):
        assert line in printed
    assert not (tmp_path / "run").exists()
    assert main([*command, "--set", "keep.min_turns=9"]) == 2
    assert "none of the 20 rollouts is left to train (" in capsys.readouterr().err
    assert main(["sft", "--model", str(student)]) == 2
    assert "give a CONFIG.toml, or --rollouts and --model" in capsys.readouterr().err
