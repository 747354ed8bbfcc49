"""Plays tasks through verifiers in this process: against a scripted endpoint, with either of its clients."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import verifiers.v1 as vf
from pydantic import TypeAdapter
from renderers import RendererConfig
from verifiers.v1.utils.loaders import resolve_env_config

from rlm_env.rollout import Rollout
from rlm_env.train.learner.samples import Sample, rollout_samples

CODE = re.compile(r"^```repl\n(.*)\n```$", re.DOTALL)
RENDERERS = TypeAdapter(RendererConfig)


def env_config(name: str, harness: dict[str, Any] | None = None, **parts: Any) -> vf.EnvConfig:
    """`[env]` of a run on an environment's package. `parts`: of the taskset, but for `agent`, `sub` and those of the
    environment."""
    own = {key: parts.pop(key) for key in ("separate_sub", "train_sub", "max_concurrent_agents") if key in parts}
    agent = {**parts.pop("agent", {}), "harness": {"id": name, **(harness or {})}}
    seats = {"agent": agent, **({"sub": parts.pop("sub")} if "sub" in parts else {})}
    return resolve_env_config({"taskset": {"id": name, **parts}, **seats, **own})


def eval_client(url: str) -> vf.EvalClientConfig:
    return vf.EvalClientConfig(base_url=url, api_key_var="NO_SUCH_KEY")


def train_client(url: str, tokenizer: Path, renderer: str, **more: Any) -> vf.TrainClientConfig:
    return vf.TrainClientConfig(
        base_url=url,
        api_key_var="NO_SUCH_KEY",
        renderer_model_name=str(tokenizer),
        renderer=RENDERERS.validate_python({"name": renderer, **more}),
    )


async def play(
    config: vf.EnvConfig,
    client: vf.ClientConfig,
    sampling: dict[str, Any] | None = None,
    *,
    repeats: int = 1,
    model: str = "m",
) -> list[vf.Episode]:
    """An episode for each task and repeat."""
    environment = vf.load_environment(config)
    context = vf.ModelContext(model=model, client=client, sampling=vf.SamplingConfig(**(sampling or {})))
    async with environment.serving():
        slots = [slot for task in environment.taskset for slot in environment.slots(task, repeats)]
        return list(await asyncio.gather(*(environment.run_slot(slot, context) for slot in slots)))


Row = tuple[tuple[int, ...], tuple[bool, ...], tuple[float, ...]]
"""Ids, which of them are trained, and the log-probabilities of these."""


def sample_rows(rollout: Rollout) -> Counter[Row]:
    """What our trainer would train of a rollout."""

    def row(sample: Sample) -> Row:
        trained = zip(sample.behavior_logprobs, sample.mask, strict=True)
        return tuple(sample.token_ids), tuple(sample.mask), tuple(round(value, 6) for value, on in trained if on)

    return Counter(map(row, rollout_samples(rollout)))


def branch_rows(trace: vf.Trace) -> Counter[Row]:
    """What prime-rl would train of a trace: each branch, and each sampled message once."""
    rows: Counter[Row] = Counter()
    trained: set[int] = set()
    for branch in trace.branches:
        mask: list[bool] = []
        for node in branch.nodes:
            again = node.sampled and id(node) in trained
            mask += [False] * len(node.mask) if again else node.mask
            if node.sampled:
                trained.add(id(node))
        if any(mask):
            values = tuple(round(value, 6) for value, on in zip(branch.logprobs, mask, strict=True) if on)
            rows[tuple(branch.token_ids), tuple(mask), values] += 1
    return rows


def chat_reply(text: str, **message: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def generating(tokenizer: Any, reply: Callable[[str], str]) -> Callable[[str, dict[str, Any]], Any]:
    """The routes of a vLLM that verifiers asks for tokens: `reply(prompt)` gives the text of each completion."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path != "/inference/v1/generate":
            return {"data": [{"id": "m", "max_model_len": 100_000}]}
        text = reply(tokenizer.decode(body["token_ids"]))
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        content = [{"token": f"token_id:{token}", "logprob": -((place % 7) + 1) / 8} for place, token in enumerate(ids)]
        choice = {"index": 0, "token_ids": ids, "logprobs": {"content": content}, "finish_reason": "stop"}
        return {"request_id": "r", "choices": [choice]}

    return answer


def single_traces(episodes: Iterable[vf.Episode]) -> list[vf.Trace]:
    """The one trace of each episode."""
    return [trace for episode in episodes for (trace,) in [episode.traces]]
