"""What the trainer does on this card: whether it is right, and how far from the limit. One command, under 8 minutes.

    python scripts/bench/gpu.py                              # a CUDA card, real shapes
    python scripts/bench/gpu.py --quick                      # the CPU, tiny shapes (tests/train/test_gpu_bench.py)

Needs torch, transformers, pydantic and this repository; downloads nothing. Weights are random, shapes are real.
Prints one JSON object a line, flushed, so that a run that is cut off still says what it knows; ends with exit code 1
where a check failed. Stages, each with a deadline and caught on its own: `probe` (card, versions, rates), `check`
(correctness against float32 on the CPU), `tree` (prefix trees: right, and how much faster than flat packs), `attention`
and `head` (kernels beside the alternatives), `step` (whole optimizer steps), `trl` (TRL's step on the first of these
batches, where it is installed), `export`, `sync` (weights into a vLLM through a folder, by CUDA IPC and by NCCL; left
out, with the reason, where there is no vLLM or card for it, and with --no-engine).

MFU is model FLOPs (6 per parameter and token, attention without masked blocks, recomputation not counted) over the
rate of a matrix product measured on this card in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that a checkout is enough, without an installation

import gpu_checks
import gpu_kernels
import gpu_sync
import gpu_tree
import gpu_trl
from gpu_shapes import SHAPES, make_folder, rlm_samples

from rlm_env.train.learner.config import LoraConfig, LossConfig, ModelConfig, OptimizerConfig
from rlm_env.train.learner.learner import Learner
from rlm_env.train.learner.memory import GIB, training_memory
from rlm_env.train.learner.model import read_model_config
from rlm_env.train.learner.samples import Sample


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the stage `step`."""

    shape: str
    pack_tokens: int
    packs: int = 2
    lora: bool = False
    attention: str = "auto"
    compile: bool = False


STEPS = {
    "real": [
        Run("0.6B", 16_384),
        Run("4B", 16_384),
        Run("4B", 16_384, compile=True),
        Run("0.6B", 16_384, compile=True),
        Run("4B", 16_384, lora=True),
        Run("0.6B", 16_384, attention="sdpa"),
        Run("4B", 32_768),
        Run("4B", 16_384, attention="sdpa"),
    ],
    "tiny": [Run("tiny", 512), Run("tiny", 512, lora=True), Run("tiny", 512, attention="sdpa")],
}
FILL = 0.95
"""Share of its packs that a step's samples fill: a little room, so that they go into so many packs and no more."""


class Bench:
    """Where results go, and when a stage has to end."""

    def __init__(self, device: torch.device, shapes: str, seconds: float) -> None:
        self.device = device
        self.shapes = shapes
        self.failed: list[str] = []
        self.peak_tflops = 1.0
        self._start = time.monotonic()
        self._end = self._start + seconds

    @property
    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    def say(self, stage: str, **values: Any) -> None:
        """One line of output; floats are rounded to four digits."""
        rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
        print(
            json.dumps({"bench": "gpu", "stage": stage, "at_s": round(time.monotonic() - self._start, 1)} | rounded),
            flush=True,
        )

    def check(self, what: str, value: float, bound: float) -> None:
        """One check: `value` must not be above `bound`."""
        passed = value <= bound  # False for nan
        if not passed:
            self.failed.append(what)
        self.say("check", what=what, value=value, bound=bound, passed=passed)

    @contextmanager
    def caught(self, stage: str, **what: Any) -> Iterator[None]:
        """A stage that raises fails alone, with the end of its traceback."""
        try:
            yield
        except Exception:
            self.failed.append(stage)
            self.say(stage, **what, failed=traceback.format_exc()[-500:])
        finally:
            if self.device.type == "cuda":
                torch.compiler.reset()  # compiled code holds on to the weights that it was compiled for
                gc.collect()
                torch.cuda.empty_cache()

    def milliseconds(self, run: Callable[[], Any], warm: int = 2, repeats: int = 5, limit: float = 10.0) -> float:
        """Median of at most `repeats`, none begun after `limit` seconds. With tiny shapes, whose times say nothing of a
        card, the one call that shows that it works."""
        if self.shapes == "tiny":
            warm, repeats = 0, 1
        for _ in range(warm):
            run()
        self.wait()
        begin, found = time.monotonic(), []
        while len(found) < repeats and (not found or time.monotonic() - begin < limit):
            start = time.perf_counter()
            run()
            self.wait()
            found.append(1e3 * (time.perf_counter() - start))
        return sorted(found)[len(found) // 2]

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """Peak memory since `forget_peak`; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() / GIB if self.device.type == "cuda" else 0.0


def probe(bench: Bench) -> None:
    """Card, versions, and the two rates that everything else is held against."""
    import transformers

    real = bench.shapes == "real"
    if bench.device.type == "cuda":
        card = torch.cuda.get_device_properties(bench.device)
        bench.say("probe", card=card.name, gib=card.total_memory / GIB, cuda=torch.version.cuda)
    bench.say("probe", torch=torch.__version__, transformers=transformers.__version__, python=sys.version.split()[0])
    size = 8192 if real else 256
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    bench.peak_tflops = 2 * size**3 / bench.milliseconds(lambda: a @ b, 3, 10) / 1e9
    source = torch.randn(2**30 if real else 2**20, device=bench.device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copy = bench.milliseconds(lambda: target.copy_(source), 3, 10)
    bench.say("probe", matmul_tflops=bench.peak_tflops, copy_tb_per_s=4 * source.numel() / copy / 1e9)


def model_config(run: Run, device: torch.device) -> ModelConfig:
    return ModelConfig(
        dtype="bfloat16",
        lora=LoraConfig() if run.lora else None,
        gradient_checkpointing=True,
        attention=run.attention,
        device=device.type,
        pack_tokens=run.pack_tokens,
        compile=run.compile,
    )


def step(bench: Bench, run: Run, folder: Path) -> tuple[list[Sample], float] | None:
    """Whole optimizer steps of the learner, on samples with RLM lengths of which a third of the tokens is trained.
    Returns them and the milliseconds of a step; None where it does not fit."""
    what = {
        "model": run.shape,
        "lora": run.lora,
        "attention": run.attention,
        "compile": run.compile,
        "pack_tokens": run.pack_tokens,
    }
    config = model_config(run, bench.device)
    estimate = training_memory(read_model_config(folder), config).total / GIB
    if bench.device.type == "cuda" and estimate > 0.95 * torch.cuda.mem_get_info()[0] / GIB:
        bench.say("step", **what, skipped="does not fit", estimated_gib=estimate)
        return None
    bench.forget_peak()
    start = time.monotonic()
    learner = Learner(folder, config, OptimizerConfig(lr=1e-6), LossConfig(), total_steps=100)
    loading = time.monotonic() - start
    samples = rlm_samples(
        int(FILL * run.pack_tokens * run.packs), SHAPES[run.shape]["vocab_size"], tiny=bench.shapes == "tiny"
    )
    first = bench.peak_gib()
    bench.forget_peak()
    packs = learner.step(samples)["packs"]
    ms = bench.milliseconds(lambda: learner.step(samples), 0, 3, 8.0)
    tokens = sum(map(len, samples))
    work = sum(map(learner.cost.of, samples))
    bench.say(
        "step",
        **what,
        packs=int(packs),
        samples=len(samples),
        tokens=tokens,
        ms=ms,
        tokens_per_s=1e3 * tokens / ms,
        model_tflops=work / ms / 1e9,
        mfu=work / ms / 1e9 / bench.peak_tflops,
        peak_gib=bench.peak_gib(),
        estimated_gib=estimate,
        loading_s=loading,
        loading_peak_gib=first,
    )
    if bench.device.type == "cuda":
        bench.check(f"{run.shape}: peak memory is within the estimate", bench.peak_gib() / estimate, 1.1)
    return samples, ms


def export(bench: Bench, folder: Path, shape: str) -> None:
    """Weights as a folder that an engine serves."""
    config = model_config(Run(shape, 512), bench.device)
    learner = Learner(folder, config, OptimizerConfig(), LossConfig(), total_steps=1)
    with tempfile.TemporaryDirectory() as target:
        start = time.monotonic()
        learner.export(Path(target) / "model")
        seconds = time.monotonic() - start
        size = sum(file.stat().st_size for file in (Path(target) / "model").glob("*.safetensors"))
    bench.say("export", model=shape, seconds=seconds, gb=size / 1e9, gb_per_s=size / 1e9 / seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny shapes on the CPU, as in CI")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda, with --quick cpu")
    parser.add_argument("--shapes", choices=("real", "tiny"), help="default: real, with --quick tiny")
    parser.add_argument("--no-engine", action="store_true", help="leave out the stage sync, which starts vLLM")
    parser.add_argument("--seconds", type=float, default=440.0, help="no stage begins later than this (default: 440)")
    arguments = parser.parse_args()
    transformers_logging.disable_progress_bar()
    device = torch.device(arguments.device or ("cpu" if arguments.quick else "cuda"))
    shapes = arguments.shapes or ("tiny" if arguments.quick else "real")
    bench = Bench(device, shapes, arguments.seconds)
    with bench.caught("probe"):
        probe(bench)
    with bench.caught("check"):
        gpu_checks.run(bench)
    with bench.caught("tree"):
        gpu_tree.run(bench)
    for stage in (gpu_kernels.attention, gpu_kernels.head):
        with bench.caught(stage.__name__):
            stage(bench)
    with tempfile.TemporaryDirectory(prefix="rlm-env-gpu-") as root:
        folders: dict[str, Path] = {}
        first: tuple[str, list[Sample], float] | None = None
        for run in STEPS[shapes]:
            if bench.seconds_left < 0:
                bench.say("step", stopped="deadline")
                break
            done = None
            with bench.caught("step", model=run.shape, attention=run.attention):
                if run.shape not in folders:
                    folders[run.shape] = make_folder(run.shape, Path(root) / run.shape, device)
                done = step(bench, run, folders[run.shape])
            if done is not None and first is None:
                first = (run.shape, *done)
        if first is not None and bench.seconds_left > 0:
            with bench.caught("trl"):
                gpu_trl.run(bench, folders[first[0]], *first)
        if folders and bench.seconds_left > 0:
            shape, folder = next(iter(folders.items()))
            with bench.caught("export"):
                export(bench, folder, shape)
            if arguments.no_engine:
                bench.say("sync", skipped="--no-engine")
            elif bench.seconds_left > 0:
                with bench.caught("sync"):
                    gpu_sync.run(bench, folder, Path(root))
    bench.say("end", failed=bench.failed)
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
