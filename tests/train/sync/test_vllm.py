"""Samples from the real vLLM: the model's log-probabilities over packs are the engine's, and the ratio is 1."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rlm_env.llm import Request, Sampling, VLLMServer  # noqa: E402
from rlm_env.rollout import Rollout, SubCall, Turn  # noqa: E402
from rlm_env.train.learner.config import LossConfig  # noqa: E402
from rlm_env.train.learner.forward import pack_logprobs  # noqa: E402
from rlm_env.train.learner.loss import policy_loss  # noqa: E402
from rlm_env.train.learner.packing import collate, pack_samples  # noqa: E402
from rlm_env.train.learner.packing_check import check_packing  # noqa: E402
from rlm_env.train.learner.samples import SampleKind, rollout_samples  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

ROOT, SUB = 0.7, 1.0


async def conversation(policy, number: int) -> Rollout:
    """Two turns of a root LLM with an observation in between, and sub-calls at another temperature."""
    sampling = Sampling(temperature=ROOT, max_tokens=24)
    messages = [{"role": "user", "content": f"Count the lines of part {number}."}]
    rollout = Rollout(id=str(number))
    for observation in ("3 lines", "done"):
        completion = await policy.complete(messages, None, sampling)
        rollout.turns.append(Turn.from_completion(completion))
        messages += [completion.message(), {"role": "user", "content": observation}]
    prompts = [[{"role": "user", "content": f"Label of line {line}?"}] for line in range(4)]
    requests = [Request(prompt, sampling=Sampling(temperature=SUB, max_tokens=8)) for prompt in prompts]
    for index, answer in enumerate(await policy.complete_many(requests)):
        ids = {"prompt_ids": answer.prompt_ids, "completion_ids": answer.completion_ids, "logprobs": answer.logprobs}
        rollout.sub_calls.append(SubCall(index, 0, 0, prompts[index], **ids))
    return rollout


async def test_first_step_ratios_are_one(vllm_server: VLLMServer, tiny_model_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy = vllm_server.policy(renderer="default")
    rollouts = [await conversation(policy, number) for number in range(6)]
    await policy.aclose()
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    assert check_packing(model, ROOT).leak == 0
    samples = [sample for rollout in rollouts for sample in rollout_samples(rollout)]
    sampled = sum(len(s.completion_ids) for rollout in rollouts for s in [*rollout.turns, *rollout.sub_calls])
    assert sum(sample.trained_tokens for sample in samples) == sampled
    totals: dict[str, float] = {}
    for pack in map(collate, pack_samples(samples, 512)):
        temperatures = pack.spread([ROOT if sample.kind == SampleKind.ROOT else SUB for sample in pack.samples])
        with torch.no_grad():
            logprobs = pack_logprobs(model, pack, temperatures).logprobs
        advantages = torch.ones_like(logprobs)
        _, metrics = policy_loss(logprobs, pack.behavior_logprobs, advantages, pack.mask, LossConfig())
        totals = {name: totals.get(name, 0.0) + value.item() for name, value in metrics.items()}
    assert totals["tokens"] == sampled
    assert totals["clipped"] == 0
    assert totals["log_ratio_abs"] / sampled < 1e-5  # measured: 6e-7
