"""What it costs that sub-calls go through verifiers: one `llm_batch` of short prompts by four ways to the same vLLM.

    python scripts/bench/through_verifiers.py [--calls 256] [--repeats 3]

The root is scripted. `tokens` is the way of our own trainer: a batch is one request. `chat` is one request a prompt,
straight to vLLM. `verifiers eval` and `verifiers train` go through its interception server, in the same process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from unittest.mock import patch

import verifiers.v1 as vf
from pydantic import TypeAdapter
from renderers import RendererConfig
from verifiers.v1.utils.loaders import resolve_env_config

from rlm_env.adapters.verifiers.calls import InterceptedChat
from rlm_env.llm import LLM, OpenAIChat, Sampling, VLLMServer
from rlm_env.llm.base import ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.registry import load_environment
from rlm_env.runs.models import model_folder

OPTIONS = {"vocabulary": "easy", "lengths": [512]}
ROLLOUT = {"prompt": "tiny", "action": "fence", "sub": {"temperature": 1.0, "max_tokens": 8}}
CODE = """```repl
replies = llm_batch([f"Classify line {{i}}: the red pig" for i in range({calls})])
answer["content"] = str(len(replies))
answer["ready"] = True
```"""


class ScriptedRoot(LLM):
    """Makes one batch of sub-calls, and is not asked of any engine."""

    def __init__(self, calls: int) -> None:
        self.reply = Completion(CODE.format(calls=calls))

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        return self.reply


async def ways(server: VLLMServer, calls: int) -> AsyncIterator[tuple[str, Callable[[], Awaitable[object]]]]:
    root = ScriptedRoot(calls)
    environment = load_environment("oolong-rlm", **OPTIONS, **ROLLOUT)
    (task,) = environment.tasks("eval").take(1)
    chat = OpenAIChat(server.served_name, server.base_url, supports_tools=False, concurrency=256)
    config = resolve_env_config(
        {
            "taskset": {"id": "oolong-rlm", "options": OPTIONS, "num_tasks": 1},
            "agent": {"harness": {"id": "oolong-rlm", "rollout": ROLLOUT, "tools": False}},
        }
    )
    intercepted = InterceptedChat.complete

    async def scripted(
        self: InterceptedChat,
        messages: list[Message],
        tools: list[ToolSchema] | None = None,
        sampling: Sampling | None = None,
    ) -> Completion:
        return root.reply if self._role == "root" else await intercepted(self, messages, tools, sampling)

    engine = {"base_url": server.base_url, "api_key_var": "NO_SUCH_KEY"}
    renderer = TypeAdapter(RendererConfig).validate_python({"name": "default"})
    clients = {
        "eval": vf.EvalClientConfig(**engine),
        "train": vf.TrainClientConfig(**engine, renderer=renderer, renderer_model_name=str(server.folder.path)),
    }
    verifiers_environment = vf.load_environment(config)
    (verifiers_task,) = verifiers_environment.taskset

    async def through_verifiers(client: vf.ClientConfig) -> None:
        sampling = vf.SamplingConfig(temperature=1.0, max_tokens=8)
        context = vf.ModelContext(model=server.served_name, client=client, sampling=sampling)
        (slot,) = verifiers_environment.slots(verifiers_task)
        episode = await verifiers_environment.run_slot(slot, context)
        if not episode.ok:
            raise SystemExit(str(episode.traces[0].errors or episode.errors))

    async with environment, chat, server.policy(renderer="default") as tokens, verifiers_environment.serving():
        with patch.object(InterceptedChat, "complete", scripted):
            yield "tokens", lambda: environment.rollout(task, root, tokens)
            yield "chat", lambda: environment.rollout(task, root, chat)
            for name, client in clients.items():
                yield f"verifiers {name}", lambda client=client: through_verifiers(client)


async def main(calls: int, repeats: int) -> None:
    async with VLLMServer(model_folder("tiny-rlm"), scale_out=True) as server:
        await server.warm_up()
        async for name, play in ways(server, calls):
            await play()  # what is set up on first use
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                await play()
                seconds.append(time.perf_counter() - start)
            print(f"{name:16} {calls / statistics.median(seconds):6.0f} sub-calls/s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    asyncio.run(main(**vars(parser.parse_args())))
