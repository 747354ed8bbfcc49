"""In place of a vLLM, for tests that would kill one again and again: the same routes, transformers behind them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from transformers import AutoModelForCausalLM

from rlm_env.llm import EngineUnavailable, LLMError, TokenPolicy, VLLMStartError


class StandInVLLM:
    """Like `VLLMServer`, as far as `TrainEngine` knows it. `made` lists all of them in order."""

    made: list[StandInVLLM]

    def __init__(self, model: Path, **options: Any) -> None:
        self.model, self.options = Path(model), options
        self.log_path = options["log_path"]
        self.alive = False
        self.delay = 0.0
        """Seconds that a start and a completion take."""
        self.running = asyncio.Event()
        self.running.set()
        self.resumed = asyncio.Event()
        self.aborts = 0
        self.hold_after: int | None = None
        """A prompt with so many tokens waits for the next pause to end."""
        self.held = asyncio.Event()
        """Set when one does."""
        self.sampled: dict[str, list[tuple[int, float]]] = {}
        """Tokens and log-probabilities of each prompt in flight, by an id like vLLM's."""
        type(self).made.append(self)

    async def __aenter__(self) -> StandInVLLM:
        await asyncio.sleep(0.05)
        if not self.model.exists():
            raise VLLMStartError(f"no weights at {self.model}")
        self.weights = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32).eval()
        app = web.Application()
        self._routes(app)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.root_url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.base_url = f"{self.root_url}/v1"
        self.alive = True
        return self

    def _routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/completions", self._completions)

    async def kill(self) -> None:
        self.alive = False
        await self.runner.cleanup()

    async def __aexit__(self, *_: object) -> None:
        if self.alive:
            await self.kill()

    def policy(self, name: str, *, tokenizer: Path, **options: Any) -> TokenPolicy:
        return TokenPolicy(name, self.base_url, tokenizer, context_window=1024, **options)

    async def is_healthy(self, within: float) -> bool:
        return self.alive

    async def warm_up(self) -> None:
        pass

    async def pause(self, mode: str = "keep") -> None:
        self._require_life()
        self.running.clear()
        self.aborts += mode == "abort"

    async def resume(self) -> None:
        self._require_life()
        self.running.set()
        self.resumed.set()

    async def tokens_in_flight(self) -> dict[str, int]:
        self._require_life()
        assert not self.running.is_set(), "only while paused"
        return {name: len(sampled) for name, sampled in self.sampled.items()}

    def _require_life(self) -> None:
        if not self.alive:
            raise EngineUnavailable("dead")

    async def reload_weights(self, folder: Path) -> None:
        self._require_life()
        try:
            self.weights = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            raise LLMError(str(error)) from error

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(self.delay)
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        return web.json_response({"choices": [await self._choice(i, ids, body) for i, ids in enumerate(prompts)]})

    async def _choice(self, index: int, prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        name, aborts, reason = f"cmpl-{body.get('request_id', 'x')}-{index}-0", self.aborts, "length"
        ids, sampled = list(prompt), self.sampled.setdefault(name, [])
        for _ in range(body["max_tokens"]):
            await asyncio.sleep(0)
            await self.running.wait()
            if len(sampled) == self.hold_after:
                self.held.set()
                await self.resumed.wait()
            if self.aborts > aborts:
                reason = "abort"
                break
            logits = self._logits(ids)
            if not sampled:
                of_prompt = logits.log_softmax(-1)
            found = (logits[-1] / (body["temperature"] or 1)).log_softmax(-1)
            token = int(found.argmax() if not body["temperature"] else torch.multinomial(found.exp(), 1))
            if "raw_logprobs" in self.options.get("extra_args", ()):
                found = logits[-1].log_softmax(-1)
            sampled.append((token, float(found[token])))
            ids.append(token)
        del self.sampled[name]
        if reason == "abort" and not sampled:
            found = self._logits(ids)[-1].log_softmax(-1)
        shown = body.get("logprob_token_ids") or found.topk(body.get("logprobs") or 1).indices.tolist()
        choice = {
            "index": index,
            "token_ids": [token for token, _ in sampled],
            "finish_reason": reason,
            "logprobs": {
                "token_logprobs": [value for _, value in sampled],
                "top_logprobs": [{f"token_id:{token}": float(found[token]) for token in shown}],
            },
        }
        if "prompt_logprobs" in body:
            pairs = zip(of_prompt[:-1], prompt[1:], strict=False)
            choice["prompt_logprobs"] = [None, *({str(t): {"logprob": float(sample[t])}} for sample, t in pairs)]
        return choice

    @torch.no_grad()
    def _logits(self, ids: list[int]) -> torch.Tensor:
        return self.weights(torch.tensor([ids]), use_cache=False).logits[0]
