"""`python -m prime_rl_proof.trainer OUT MODEL STEPS`: a trainer for CPUs behind prime-rl's file transport.

Micro batches come from its receiver, the loss is its `compute_loss`, and new weights lie where its orchestrator looks
for them. What is missing of its own trainer is FSDP and CUDA. One line of JSON a step goes to OUT/trainer.jsonl.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prime_rl_proof.checkout import use_checkout

LEARNING_RATE = 3e-4


class Trainer:
    """A model that is trained on the micro batches of a run."""

    def __init__(self, out: Path, folder: Path) -> None:
        from prime_rl.configs.trainer import DefaultLossConfig
        from prime_rl.trainer.rl.loss import setup_rl_loss_fn
        from prime_rl.transports.rollouts.filesystem import FileSystemMicroBatchReceiver

        self.out = out
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        self.loss_of = setup_rl_loss_fn(DefaultLossConfig())
        self.batches = FileSystemMicroBatchReceiver(out, data_rank=0, current_step=1)

    def publish(self, step: int) -> None:
        """Writes the weights of a step, and the mark that they are whole."""
        folder = self.out / "broadcasts" / f"step_{step}"
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / "STABLE").touch()

    def step(self) -> dict[str, Any]:
        """Waits for the next batch and trains on it."""
        self.batches.wait()
        start = time.monotonic()
        batches = self.batches.receive()
        trained = max(1, sum(sum(batch.loss_mask) for batch in batches))
        loss, differences, samples = 0.0, [], 0
        for batch in batches:
            for sample in _samples(batch):
                samples += 1
                loss += self._add_gradients(sample, trained, differences)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        difference = torch.cat(differences)
        return {
            "micro_batches": len(batches),
            "samples": samples,
            "trained_tokens": trained,
            "loss": loss,
            "grad_norm": norm,
            "logprob_difference_mean": difference.mean().item(),
            "logprob_difference_max": difference.max().item(),
            "seconds": time.monotonic() - start,
        }

    def _add_gradients(self, sample: dict[str, torch.Tensor], trained: int, differences: list[torch.Tensor]) -> float:
        from prime_rl.trainer.rl.loss import compute_loss

        ids, mask = sample["input_ids"], sample["loss_mask"]
        logits = self.model(input_ids=ids[None]).logits[0].float() / sample["temperatures"][:, None]
        logprobs = torch.log_softmax(logits[:-1], -1).gather(-1, ids[1:, None])[:, 0]
        logprobs = torch.cat([logprobs.new_zeros(1), logprobs])  # of the first token, which nothing predicts
        differences.append((logprobs - sample["inference_logprobs"]).detach().abs()[mask])
        weights = None if sample.get("rl_weights") is None else [sample["rl_weights"]]
        given = ([logprobs], [sample["inference_logprobs"]], None, [sample["advantages"]], [mask], weights, None, None)
        loss, _ = compute_loss(*given, self.loss_of, trained, 1, 1)
        loss.backward()
        return loss.item()


def _samples(batch: Any) -> Iterator[dict[str, torch.Tensor]]:
    """The sequences that are packed in a micro batch, without its padding."""
    names = ("input_ids", "loss_mask", "temperatures", "inference_logprobs", "advantages", "rl_weights")
    columns = {name: torch.tensor(getattr(batch, name)) for name in names if getattr(batch, name, None) is not None}
    start = 0
    for length in batch.sequence_lengths:
        sample = {name: column[start : start + length] for name, column in columns.items()}
        start += length
        if sample["loss_mask"].any():
            yield sample


def main(out: str, model: str, steps: str) -> None:
    use_checkout()
    trainer = Trainer(Path(out), Path(model))
    trainer.publish(0)
    with open(Path(out) / "trainer.jsonl", "a", encoding="utf-8") as log:
        for step in range(1, int(steps) + 1):
            print(json.dumps({"step": step, **trainer.step()}), file=log, flush=True)
            trainer.publish(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
