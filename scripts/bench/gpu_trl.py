"""TRL's optimizer step on the same model and batch as ours, where it is installed: the stage `trl` of `gpu.py`.

TRL 1.16's own `training_step`, with its padding and micro-batches, in float32 weights under bfloat16 autocast, and its
optimizer; only what generates and scores is replaced by a batch that is given. That both compute the same loss and
gradients is tested in `tests/train/learner/test_trl.py`.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlm_env.train.learner.samples import Sample

if TYPE_CHECKING:
    from gpu import Bench

ROWS = 4
"""Samples of a micro-batch. Each is padded to the longest of the whole batch."""


def run(bench: Bench, folder: Path, shape: str, samples: Sequence[Sample], ours_ms: float) -> None:
    """`samples`: those that took the learner `ours_ms` a step."""
    if missing := [name for name in ("trl", "datasets") if importlib.util.find_spec(name) is None]:
        return bench.say("trl", model=shape, skipped=f"not installed: {', '.join(missing)}")
    batch = list(samples[: len(samples) // ROWS * ROWS])
    with tempfile.TemporaryDirectory(prefix="rlm-env-trl-") as root:
        trainer = _trainer(folder, batch, bench.device, Path(root))
        bench.forget_peak()
        ms = bench.milliseconds(lambda: _step(trainer, len(batch) // ROWS), 1, 3, 8.0)
    tokens = sum(map(len, batch))
    rate = 1e3 * tokens / ms
    ratio = rate / (1e3 * sum(map(len, samples)) / ours_ms)
    what = {"model": shape, "samples": len(batch), "tokens": tokens, "ms": ms, "tokens_per_s": rate}
    return bench.say("trl", **what, peak_gib=bench.peak_gib(), rate_of_ours=ratio)


def _trainer(folder: Path, batch: list[Sample], device: torch.device, root: Path) -> Any:
    """A GRPOTrainer whose every step trains this batch."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    class FixedBatchTrainer(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Tensor]:
            return {name: tensor.to(device) for name, tensor in padded(batch).items()}

    on_cpu = device.type == "cpu"
    words = Tokenizer(models.WordLevel({str(index): index for index in range(3)}, unk_token="2"))
    settings = GRPOConfig(
        output_dir=str(root),
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=len(batch) // ROWS,
        num_generations=len(batch),
        max_completion_length=max(map(len, batch)),
        beta=0.0,
        loss_type="dapo",
        learning_rate=1e-6,
        bf16=not on_cpu,
        use_cpu=on_cpu,
        gradient_checkpointing=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = FixedBatchTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": "0"}] * len(batch)),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", pad_token="0"),
    )
    trainer.current_gradient_accumulation_steps = settings.gradient_accumulation_steps
    trainer.create_optimizer()
    return trainer


def _step(trainer: Any, micro_batches: int) -> None:
    for _ in range(micro_batches):
        trainer.training_step(trainer.model, [], None)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def padded(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Samples as TRL lays them out: prompts padded on the left, what follows the first trained token on the right."""
    starts = [sample.mask.index(True) for sample in samples]
    pairs = list(zip(samples, starts, strict=True))
    prompt, rest = max(starts), max(len(sample) - start for sample, start in pairs)

    def left(rows: list[list[int]]) -> Tensor:
        return torch.tensor([[0] * (prompt - len(row)) + row for row in rows])

    def right(rows: list[list[Any]]) -> Tensor:
        return torch.tensor([row + [type(row[0])(0)] * (rest - len(row)) for row in rows])

    return {
        "prompt_ids": left([sample.token_ids[:start] for sample, start in pairs]),
        "prompt_mask": left([[1] * start for start in starts]),
        "completion_ids": right([sample.token_ids[start:] for sample, start in pairs]),
        "completion_mask": right([[1] * (len(sample) - start) for sample, start in pairs]),
        "tool_mask": right([[int(trained) for trained in sample.mask[start:]] for sample, start in pairs]),
        "old_per_token_logps": right([sample.behavior_logprobs[start:] for sample, start in pairs]),
        "advantages": torch.tensor([sample.advantage for sample in samples]),
        "num_items_in_batch": torch.tensor(sum(sample.trained_tokens for sample in samples)),
    }
