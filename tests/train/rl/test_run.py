"""Whole runs without an engine: from saved samples, killed and resumed to the bit; what the command says; metrics."""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rlm_env.cli import main  # noqa: E402
from rlm_env.runs.errors import ConfigError  # noqa: E402
from rlm_env.runs.folder import read_summary  # noqa: E402
from rlm_env.train.learner.sample_files import write_samples  # noqa: E402
from rlm_env.train.learner.samples import Sample, SampleKind  # noqa: E402
from rlm_env.train.report.metrics import MetricsLog, read_metrics  # noqa: E402
from rlm_env.train.report.tracking import WandbConfig  # noqa: E402
from rlm_env.train.rl.config import load_train_config  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402

REPOSITORY = Path(__file__).parents[3]
STEPS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small", hidden=32, layers=2)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Six steps of root and sub samples."""
    folder = tmp_path_factory.mktemp("samples")
    chance = random.Random(0)
    for step in range(1, STEPS + 1):
        found = []
        for index in range(8):
            length = chance.randrange(4, 40)
            mask = [False] * 2 + [True] * (length - 2)
            logprobs = [-3.0 * chance.random() * trained for trained in mask]
            kind = SampleKind.SUB if index % 3 == 2 else SampleKind.ROOT
            found.append(
                Sample(
                    [chance.randrange(400) for _ in range(length)],
                    mask,
                    logprobs,
                    f"{step}/{index}",
                    kind=kind,
                    advantage=chance.random() - 0.5,
                )
            )
        write_samples(folder, step, found)
    return folder


@pytest.fixture
def config(tmp_path, model):
    """Writes a config file; keyword arguments are further lines."""

    def write(*lines: str, pack_tokens: int = 64) -> Path:
        path = tmp_path / "run.toml"
        text = [
            f'model = "{model}"',
            f'out = "{tmp_path / "out"}"',
            f"steps = {STEPS}",
            *lines,
            "[[environments]]",
            'name = "needle-rlm"',
            'rollout = { prompt = "tiny" }',
            "[trainer]",
            'dtype = "float32"',
            'device = "cpu"',
            f"pack_tokens = {pack_tokens}",
            "threads = 1",
            "[optimizer]",
            "lr = 1e-3",
            'schedule = "cosine"',
            "[checkpoint]",
            "every = 2",
        ]
        path.write_text("\n".join(text))
        return path

    return write


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def losses(out: Path) -> list[tuple[int, float, float]]:
    return [(line["step"], line["loss"], line["grad_norm"]) for line in read_metrics(out / "metrics.jsonl")]


@pytest.mark.slow
def test_a_run_from_samples_that_is_killed_resumes_to_the_bit(config, samples, tmp_path):
    path = config()
    assert main(["train", str(path), "--from-samples", str(samples), "--out", str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-m", "rlm_env.cli", "train", str(path), "--from-samples", str(samples)]
    for killed_after in (1, 3):
        run = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(read_metrics(tmp_path / "out" / "metrics.jsonl")) < killed_after and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        if "--resume" not in command:
            command.append("--resume")
    assert main([*command[3:]]) == 0
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    assert [step for step, _, _ in losses(tmp_path / "out")] == list(range(1, STEPS + 1))
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_a_folder_that_holds_a_run_is_not_written_over(config, samples, tmp_path, capsys):
    path = str(config())
    assert main(["train", path, "--from-samples", str(samples), "--set", "steps=2"]) == 0
    assert main(["train", path, "--from-samples", str(samples)]) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err
    assert main(["train", path, "--from-samples", str(samples), "--resume", "--set", "optimizer.lr=1e-4"]) == 2
    error = capsys.readouterr().err
    assert "began with another config" in error
    assert "optimizer was" in error
    assert "a cosine schedule ends there" in error


def test_samples_that_do_not_fit_are_refused_before_they_are_trained(config, samples, tmp_path, capsys):
    assert main(["train", str(config()), "--from-samples", str(samples), "--set", "trainer.pack_tokens=16"]) == 2
    assert "raise trainer.pack_tokens" in " ".join(capsys.readouterr().err.split())
    assert main(["train", str(config()), "--from-samples", str(tmp_path / "none")]) == 2
    assert "make such files with --dump-samples" in " ".join(capsys.readouterr().err.split())


def lost_token(folder, logprob):
    """Steps of one token that the policy finds likely, and the engine found as likely as `logprob`."""
    lost = Sample([1, 5, 6], [False, False, True], [0.0, 0.0, logprob], "0/0", advantage=-1.0)
    for step in range(1, 6):
        write_samples(folder, step, [lost])
    return str(folder)


def test_a_run_whose_steps_are_skipped_stops_and_says_so(config, tmp_path, capsys):
    """The squared log ratio, which keeps the policy near, is beyond float32."""
    lost = lost_token(tmp_path / "lost", -1e30)
    for steps, last in ((1, [1, 1]), (5, [3, 4, 5, 5])):
        out = tmp_path / f"out-{steps}"
        command = ["train", str(config()), "--from-samples", lost, "--set", f"steps={steps}", "--out", str(out)]
        for skipped in last:  # the first time, and whenever it is resumed
            assert main(command) == 1
            assert f"gradients of the last {skipped} steps were not finite" in " ".join(capsys.readouterr().err.split())
            assert [line["skipped"] for line in read_metrics(out / "metrics.jsonl")] == [1.0] * skipped
            assert read_summary(out) == {"status": "gradients not finite", "steps": skipped}
            assert not (out / "model").exists()
            command = [*command[:8], "--resume"]


def test_a_run_that_recovers_from_a_skipped_step_is_complete(config, samples, tmp_path):
    lost_token(tmp_path / "lost", -1e30)
    for step in (4, 5, 6):
        (tmp_path / "lost" / f"step-{step:06}.jsonl").write_bytes((samples / f"step-{step:06}.jsonl").read_bytes())
    command = ["train", str(config()), "--from-samples", str(tmp_path / "lost")]
    assert main(command) == 1
    assert main([*command, "--resume"]) == 0
    assert [line["skipped"] for line in read_metrics(tmp_path / "out" / "metrics.jsonl")] == [1, 1, 1, 0, 0, 0]
    assert read_summary(tmp_path / "out")["status"] == "complete"


def test_a_token_whose_ratio_is_infinite_costs_no_step(config, tmp_path):
    lost = lost_token(tmp_path / "lost", -1000.0)
    assert main(["train", str(config()), "--from-samples", lost, "--set", "steps=1"]) == 0
    (line,) = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert (line["skipped"], line["clipped"]) == (0.0, 1.0)
    assert line["sampling/sampling_logp_difference/max"] > 900
    for name in ("ratio", "mismatch_kl", "root/ratio", "sampling/importance_sampling_ratio/max"):
        assert 1e20 < line[name] < 1e30


def test_samples_are_not_dumped_from_samples(config, samples, tmp_path, capsys):
    command = ["train", str(config()), "--from-samples", str(samples), "--dump-samples", str(tmp_path / "again")]
    assert main(command) == 2
    assert "--dump-samples has no effect with --from-samples" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("groups.size=1", "groups.size: Input should be greater than or equal to 2"),
        ("rollout.root.temperature=0", "rollout.root.temperature is 0: greedy tokens"),
        ("rollout.sub.temperature=0", "or samples.train_sub_calls = false"),
        ("rollout.root.top_p=0.9", "rollout.root.top_p is 0.9: training needs the whole distribution"),
        ("rollout.root.extra.top_k=20", "rollout.root.extra.top_k is 20"),
        ("rollout.root.extra.min_p=0.1", "rollout.root.extra.min_p is 0.1"),
        ("rollout.rot.temperature=1", "unknown key 'rot'; did you mean 'root'"),
        ("sync.method=rsync", "sync.method: Input should be 'disk', 'lora', 'ipc' or 'nccl'"),
        ("sync.method=lora", "needs trainer.lora"),
        ("loss.preset=dr_grpo", "needs loss.norm_tokens"),
        ("groups.min_size=9", "min_size (9) is above size (8)"),
        ("trainer.pack_tokens=512", "less than the engine's window of 1,024 tokens"),
        ("engine.max_model_len=2048", "less than the engine's window of 2,048 tokens"),
        ("groups.pools.by=nonsense", "groups.pools.by: tasks of needle-rlm have no info 'nonsense'"),
        ("groups.pools={easy=0.1,hard=0.9}", "hard (0.9) must be below easy (0.1)"),
        ("trainer.attention=sdpaa", "trainer.attention = 'sdpaa'"),
        ("trainer.lora.targets=['nope']", "trainer.lora.targets = ('nope',)"),
        ("optimizer.betas=[1.5,0.9]", "optimizer.betas.0: Input should be less than 1"),
        ("optimizer.lr=inf", "optimizer.lr: Input should be a finite number"),
        ("optimizer.warmup_steps=1000", "optimizer.warmup_steps is 1000, but the run has 6 steps"),
        ("optimizer={schedule='constant',final_fraction=0.1}", "optimizer.final_fraction has no effect"),
        ("engine.extra_args=['--logprobs-mode','raw_logprobs']", "engine.extra_args: --logprobs-mode is not to be set"),
        ("engine.extra_args=['--dtype=half']", "engine.extra_args: --dtype is not to be set: set engine.dtype"),
        ("loss={preset='gspo',norm='token'}", 'loss.norm = "token" would weigh it by its length'),
        ("groups.timeout=0.001", "groups.timeout: Input should be greater than or equal to 0.1"),
        ("trainer.device=cuda", 'trainer.device = "cuda", but torch finds no CUDA device'),
        ("sync.method=ipc", 'sync.method = "ipc" needs GPUs'),
        ("sync.method=nccl", 'sync.method = "nccl" needs GPUs'),
        ("engine.extra_args=['--weight-transfer-config=x']", "is not to be set: set sync.method"),
        ("rollout.prompt=rlm", "the window of 1,024 tokens is too small: the prompt of needle-rlm has"),
        ("engine.dtype=float8", "engine.dtype: Input should be 'auto', 'bfloat16', 'float16'"),
        ("engine.extra_args=['--logprobs_mode=raw_logprobs']", "engine.extra_args: --logprobs-mode is not to be set"),
        ("engine.extra_args=['--tensor-paralel-size','2']", "did you mean '--tensor-parallel-size'"),
        ("engine.extra_args=['-tp','3']", "--tensor-parallel-size 3 does not divide the model's 4 attention heads"),
        ("engine={devices=[0,1],extra_args=['-tp','4']}", "asks for 4 GPUs"),
        ("engine.devices=[0,0]", "engine.devices names a GPU twice: 0, 0"),
        ("rollout.root.extra.temperature=0.5", "set rollout.root.temperature instead"),
        ("rollout.root.seed=1", "rollout.root.seed is set"),
        ("optimizer.learning_rate=1", "unknown key 'optimizer.learning_rate'"),
        ("model=tiny-rml", "did you mean 'tiny-rlm'?"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(config, capsys, setting, message):
    assert main(["train", str(config(pack_tokens=1024)), "--dry-run", "--set", setting]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_held_out_evaluation_may_sample_as_it_likes(config, capsys):
    settings = ["--set", "held_out.rollout.root.temperature=0", "--set", "held_out.rollout.sub.top_p=0.9"]
    assert main(["train", str(config(pack_tokens=1024)), "--dry-run", *settings]) == 0
    assert main(["train", str(config(pack_tokens=1024)), "--dry-run", "--set", "held_out.rollout.max_turn=3"]) == 2
    assert "held_out.rollout" in (error := " ".join(capsys.readouterr().err.split()))
    assert "did you mean 'max_turns'" in error


def test_an_adapter_that_vllm_cannot_serve_is_refused(config, capsys):
    settings = ["--set", "trainer.lora.rank=1000", "--set", "sync.method=lora"]
    assert main(["train", str(config(pack_tokens=1024)), "--dry-run", *settings]) == 2
    assert "vLLM serves ranks up to 512" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rollout.root.top_p=0.9", "rollout.root.top_p is 0.9"),
        ("options.colour=1", "error: environment needle-rlm has no option 'colour'"),
        ("groups.pools.by=nonsense", "tasks of needle-rlm have no info 'nonsense'"),
        ("trainer.attention=sdpaa", "trainer.attention = 'sdpaa' is not known; did you mean 'sdpa'?"),
        ("trainer.device=cuda", 'trainer.device = "cuda", but torch finds no CUDA device'),
        ("sync.method=ipc", 'sync.method = "ipc" needs GPUs'),
        (
            "engine.max_model_len=8",
            "the window of 8 tokens is too small: the prompt of needle-rlm has at least",
        ),
        ("engine={devices=[0,1],extra_args=['-tp','4']}", "asks for 4 GPUs"),
        ("out=README.md", "out: README.md cannot be a folder"),
    ],
)
def test_a_model_that_is_not_on_disk_leaves_environments_and_sampling_checked(config, capsys, setting, message):
    command = ["train", str(config(pack_tokens=1024)), "--dry-run", "--set", "model=nobody/not-on-this-disk"]
    assert main(command) == 0
    assert "not on this disk" in capsys.readouterr().out
    assert main([*command, "--set", setting]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_stage_that_is_never_reached_is_pointed_out(capsys):
    path = REPOSITORY / "configs" / "train" / "qwen3_4b_1gpu.toml"
    assert main(["train", str(path), "--dry-run", "--set", "steps=6"]) == 0
    assert "never: the run has 6 steps" in " ".join(capsys.readouterr().out.split())


def test_forks_can_be_forbidden(config, capsys, model, tmp_path):
    assert main(["train", str(config(pack_tokens=1024)), "--dry-run", "--set", "allow_forks=false"]) == 0
    forgetful = tmp_path / "forgetful"
    forgetful.mkdir()
    for file in model.iterdir():
        (forgetful / file.name).write_bytes(file.read_bytes())
    template = (
        "{%- for m in messages -%}<|im_start|>{{ m.role }}\n"
        "{%- if m.role != 'assistant' or loop.last -%}{{ m.content }}{%- endif -%}<|im_end|>\n{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
    )
    (forgetful / "chat_template.jinja").write_text(template)
    settings = ["--set", f"model='{forgetful}'"]
    assert main(["train", str(config(pack_tokens=1024)), "--dry-run", *settings]) == 0
    assert "rewrites earlier turns" in capsys.readouterr().out
    assert main(["train", str(config(pack_tokens=1024)), "--dry-run", *settings, "--set", "allow_forks=false"]) == 2
    assert "allow_forks is off, but the chat template" in " ".join(capsys.readouterr().err.split())


def test_an_architecture_that_cannot_be_trained_is_refused_without_its_weights(config, capsys, model, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for file in model.iterdir():  # the weights too, which are those of another architecture: nobody reads them
        (foreign / file.name).write_bytes(file.read_bytes())
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    transformers.PhiConfig(vocab_size=400, max_position_embeddings=1024, **sizes).save_pretrained(foreign)
    command = ["train", str(config(pack_tokens=1024)), "--dry-run"]
    assert main(command) == 0
    assert "several samples, as trees where that pays" in capsys.readouterr().out
    assert main([*command, "--set", f"model='{foreign}'"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "PhiForCausalLM cannot be trained: its vocabulary head is a Linear with a bias" in error


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "train").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configs_pass_a_dry_run(path, capsys):
    if path.stem.startswith("sft"):
        pytest.skip("belongs to rlm-env sft")
    load_train_config(path)
    assert main(["train", str(path), "--dry-run"]) == 0
    assert "rollouts" in capsys.readouterr().out


OFFLINE = WandbConfig(project="rlm", mode="offline")


def test_metrics_of_steps_that_will_be_made_again_are_taken_back(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    with MetricsLog(tmp_path, console) as metrics:
        metrics.write(0, {"eval/e/score": 0.5, "eval/e/low": 0.4, "eval/e/high": 0.6})
        for step in (1, 2, 3):
            metrics.write(step, {"loss": float(step), "ratio": float("nan")})
        metrics.write(2, {"eval/e/score": 0.7})
    with open(tmp_path / "metrics.jsonl", "a") as out:
        out.write('{"step": 4, "lo')  # a crash
    with MetricsLog(tmp_path, console, trained=1) as metrics:
        assert metrics.evaluated(0)
        assert metrics.evaluated(2)
        assert not metrics.evaluated(1)
        metrics.write(2, {"loss": 9.0})
        metrics.show_step(2, 3, {"reward/mean": 0.25})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line.get("loss")) for line in lines] == [(0, None), (1, 1.0), (2, None), (2, 9.0)]
    assert "0.250" in console.file.getvalue()


@pytest.mark.parametrize("line", ["[]", "{}", '{"step": null}', '{"step": 2, "loss": "low"}', 100_000 * "["])
def test_a_line_that_holds_no_metrics_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n' + line + "\n")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl, line 2 is damaged"):
        read_metrics(path)


@pytest.mark.slow
def test_wandb_offline_gets_the_same_numbers_and_one_run_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    console = Console(file=io.StringIO())
    for trained in (0, 1):
        with MetricsLog(tmp_path, console, trained=trained, wandb=OFFLINE, config={"steps": 3}) as metrics:
            metrics.write(trained + 1, {"loss": 0.5})
    stored = list(tmp_path.rglob("run-*.wandb"))
    assert stored
    assert {path.stem for path in stored} == {f"run-{(tmp_path / 'wandb-id').read_text()}"}


def test_a_finished_config_is_read_back_from_the_runs_folder(config, samples, tmp_path):
    assert main(["train", str(config()), "--from-samples", str(samples), "--set", "steps=1", "--seed", "5"]) == 0
    again = load_train_config(tmp_path / "out" / "config.toml")
    assert (again.seed, again.steps, again.out) == (5, 1, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "complete"
