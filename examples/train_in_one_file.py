#!/usr/bin/env python3
"""GRPO on rollouts of a Recursive Language Model in one file: sample, score, update, give the engine the new weights.

    python examples/train_in_one_file.py                     # tiny-rlm on Oolong
    python examples/train_in_one_file.py --steps 4 --tasks 4

With `--steps 12 --tasks 6` on 2 shared CPU cores: 4.6 minutes, training reward 0.33, 0.27, 0.29, 0.43, 0.62, 0.43,
0.64, 0.37, 0.49, 0.60, 0.51, 0.58; |log ratio| of trainer to engine at the first step 2e-7.

Everything that matters is here to be read and changed: which tokens are trained, the advantage, the loss, the update.
From rlm-env come the environment (REPL, sub-LLMs, scorer), the engine, and three functions without state:
`rollout_samples`, `group_advantages`, `policy_loss`. What `rlm-env train` does and this does not: rollouts while the
trainer works, resuming, held-out evaluations, several GPUs, LoRA, proofs that the weights have arrived
(docs/training.md).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from statistics import fmean

import torch
from transformers import AutoModelForCausalLM

import rlm_env
from rlm_env.llm import Sampling, TokenPolicy, VLLMServer
from rlm_env.train.learner.loss import loss_denominator, policy_loss
from rlm_env.train.learner.samples import Sample, rollout_samples
from rlm_env.train.rl.advantage import group_advantages

MODEL = Path(str(files("rlm_env"))) / "models" / "tiny-rlm"
LEARNING_RATE, BETAS = 2e-4, (0.9, 0.95)  # for two million parameters; billions need a hundredth of it
TOKENS_AT_ONCE = 8192


def make_env(seed: int) -> rlm_env.RLMEnv:
    """Questions that need every line of their context to be read, and how tiny-rlm is asked."""
    return rlm_env.load_environment(
        "oolong-rlm",
        seed=seed,
        vocabulary="easy",
        families=["count", "most_common", "least_common"],
        lengths=[384, 512],
        tokenizer=str(MODEL),
        prompt="tiny",
        action="fence",
        max_turns=6,
        max_observation_chars=400,
        root=Sampling(temperature=1.0, max_tokens=256),
        sub=Sampling(temperature=1.0, max_tokens=8),
    )


async def sample_group(
    env: rlm_env.RLMEnv, task: rlm_env.Task, policy: TokenPolicy, size: int
) -> tuple[list[Sample], list[float]]:
    """`size` rollouts of one task: their training samples, each with its rollout's advantage, and the rewards.

    A rollout has one sample for the root LLM (more where a prompt is no continuation of the turn before) and one for
    each sub-call. All get the rollout's advantage: what a sub-LLM was asked, and how it answered, led to the reward.
    """
    rollouts = await asyncio.gather(*(env.rollout(task, policy) for _ in range(size)))
    rewards = []
    for rollout in rollouts:
        finished = rollout.stop_reason is rlm_env.StopReason.READY  # only an answer that was handed in counts
        rewards.append(env.score(task, rollout).value if finished else 0.0)
    samples = []
    for rollout, advantage in zip(rollouts, group_advantages(rewards), strict=True):
        if advantage:  # equal rewards teach nothing
            for sample in rollout_samples(rollout):
                sample.advantage = advantage
                samples.append(sample)
    return samples, rewards


def batches(samples: list[Sample]) -> list[list[Sample]]:
    """Samples of about the same length together, so that little is padding."""
    found: list[list[Sample]] = []
    for sample in sorted(samples, key=len):
        if not found or (len(found[-1]) + 1) * len(sample) > TOKENS_AT_ONCE:
            found.append([])
        found[-1].append(sample)
    return found


def padded(rows: list[list[float]], kind: torch.dtype) -> torch.Tensor:
    """Rows of different lengths as one tensor, zeros at the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=kind) for row in rows], batch_first=True)


def batch_loss(model: torch.nn.Module, batch: list[Sample]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss summed over the trained tokens of a batch, and the sums of its metrics.

    Padding is at the right, so no token that counts attends to it, and it is masked. Position i predicts token i + 1.
    """
    ids = padded([sample.token_ids for sample in batch], torch.long)
    mask = padded([sample.mask for sample in batch], torch.bool)[:, 1:]
    behavior = padded([sample.behavior_logprobs for sample in batch], torch.float32)[:, 1:]
    temperature = torch.tensor([sample.temperature for sample in batch])[:, None, None]
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float() / temperature
    logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    advantages = torch.tensor([sample.advantage for sample in batch])[:, None].expand_as(logprobs)
    return policy_loss(logprobs[mask], behavior[mask], advantages[mask], torch.ones(int(mask.sum()), dtype=torch.bool))


def update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, samples: list[Sample]) -> dict[str, float]:
    """One optimizer step on all samples. The loss is the mean over all trained tokens, of root and sub-LLMs alike."""
    denominator = loss_denominator(samples)
    sums: dict[str, float] = {"loss": 0.0}
    optimizer.zero_grad()
    for batch in batches(samples):
        loss, metrics = batch_loss(model, batch)
        (loss / denominator).backward()
        sums["loss"] += loss.item()
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    means = {name: value / denominator for name, value in sums.items()}
    return {"loss": means["loss"], "grad_norm": float(norm), "log_ratio": means["log_ratio_abs"]}


async def publish(model: torch.nn.Module, server: VLLMServer, folder: Path) -> None:
    """Gives the engine the new weights."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (MODEL / name).exists():
            (folder / name).write_bytes((MODEL / name).read_bytes())
    await server.reload_weights(folder)


async def train(steps: int, tasks: int, group: int, seed: int) -> list[dict[str, float]]:
    """Trains tiny-rlm for some steps of `tasks` x `group` rollouts; returns and prints the metrics of each step."""
    torch.manual_seed(seed)
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0)
    history: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with VLLMServer(MODEL, seed=seed) as server, make_env(seed) as env:
            policy = server.policy(renderer="default")
            left = iter(env.tasks("train"))
            for step in range(steps):
                start = time.monotonic()
                groups = [sample_group(env, next(left), policy, group) for _ in range(tasks)]
                found = await asyncio.gather(*groups)
                samples = [sample for members, _ in found for sample in members]
                rewards = [reward for _, members in found for reward in members]
                metrics = {"step": step, "reward": fmean(rewards), "samples": len(samples)}
                if samples:
                    metrics |= update(model, optimizer, samples)
                    await publish(model, server, Path(folder))
                history.append({**metrics, "seconds": time.monotonic() - start})
                print("  ".join(f"{name} {value:.4g}" for name, value in history[-1].items()), flush=True)
            await policy.aclose()
    return history


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps (default: 30)")
    parser.add_argument("--tasks", type=int, default=8, help="tasks of a step (default: 8)")
    parser.add_argument("--group", type=int, default=8, help="rollouts of a task (default: 8)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(train(given.steps, given.tasks, given.group, given.seed))
