"""An engine by URL: what it must be, what is refused with which remedy, and how it gets its weights back.

A stand-in answers as vLLM 0.30 does, and refuses what it refuses; the real one is in `../rl/test_engines_live.py`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

pytest.importorskip("torch")
pytest.importorskip("renderers")

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.runs.errors import ConfigError
from rlm_env.train.sync.remote_engine import EXTENSION, RemoteEngine
from tests.tiny_model import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", hidden=32, layers=1)


class TheirVLLM:
    """The routes that are asked. `dev`: with VLLM_SERVER_DEV_MODE=1; `seen`: folders that are on its machine too."""

    def __init__(self, folder: Path, **facts: Any) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.facts = {
            "dtype": "torch.float32",
            "device": "cpu",
            "extension": EXTENSION,
            "lora": None,
            "runtime_lora": False,
            "dev": True,
            "processed": True,
            "detokenize": True,
            "swapped": {},
            "vocabulary": None,
            "key": False,
            **facts,
        }
        self.seen: list[Path] = []
        self.called: list[str] = []
        self.runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self.answer({}))
        app.router.add_get("/version", self.answer({"version": "0.30.0"}))
        models = {"error": "Unauthorized"} if self.facts["key"] else {"data": [{"id": "m", "max_model_len": 512}]}
        app.router.add_get("/v1/models", self.answer(models, 401 if self.facts["key"] else 200))
        if self.facts["detokenize"]:
            app.router.add_post("/detokenize", self.detokenize)
        app.router.add_post("/v1/completions", self.complete)
        if self.facts["dev"]:
            app.router.add_get("/server_info", self.info)
            app.router.add_post("/collective_rpc", self.rpc)
            app.router.add_post("/reset_prefix_cache", self.answer({"success": True}))
            app.router.add_post("/pause", self.stand)
            app.router.add_post("/resume", self.stand)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        await self.runner.cleanup()

    def answer(self, body: dict[str, Any], status: int = 200) -> Any:
        async def reply(request: web.Request) -> web.Response:
            return web.json_response(body, status=status)

        return reply

    async def info(self, request: web.Request) -> web.Response:
        facts = self.facts
        config = {
            "model_config": {"dtype": facts["dtype"]},
            "device_config": {"device": facts["device"]},
            "parallel_config": {"worker_extension_cls": facts["extension"]},
            "lora_config": facts["lora"],
        }
        environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": facts["runtime_lora"]}
        return web.json_response({"vllm_config": config, "vllm_env": environment, "system_env": {}})

    async def detokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["model"] == "m"
        if max(body["tokens"]) >= (self.facts["vocabulary"] or len(self.tokenizer)):
            error = {"message": f"Token id {max(body['tokens'])} is out of vocabulary", "code": 400}
            return web.json_response({"error": error}, status=400)
        tokens = [self.facts["swapped"].get(token, token) for token in body["tokens"]]
        return web.json_response({"prompt": self.tokenizer.decode(tokens)})

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        scale = 1 / body["temperature"] if self.facts["processed"] else 1.0
        top = {"a": -0.1 * scale, "b": -3.0 * scale}
        assert math.isfinite(scale)
        return web.json_response({"choices": [{"index": 0, "logprobs": {"top_logprobs": [top]}}]})

    async def stand(self, request: web.Request) -> web.Response:
        self.called.append(f"{request.path} {request.query.get('mode', '')}".strip())
        return web.json_response({})

    async def rpc(self, request: web.Request) -> web.Response:
        body = await request.json()
        path = body.get("kwargs", {}).get("weights_path", "")
        if path and Path(path) not in self.seen:
            return web.json_response({"error": {"message": f"{path} is not a folder"}}, status=500)
        self.called.append(f"{body['method']} {Path(path).name}".strip())
        return web.json_response({"results": [None]})


@contextlib.asynccontextmanager
async def running(folder: Path, **facts: Any) -> AsyncIterator[TheirVLLM]:
    theirs = TheirVLLM(folder, **facts)
    await theirs.start()
    try:
        yield theirs
    finally:
        await theirs.stop()


def engine(theirs: TheirVLLM, folder: Path, served: str | None = None, **options: Any) -> RemoteEngine:
    return RemoteEngine(folder, f"http://127.0.0.1:{theirs.port}/v1", served, name="far", **options)


async def test_an_engine_that_fits_is_connected_and_told_of_itself(folder):
    async with running(folder) as theirs, engine(theirs, folder) as far:
        assert (far.dtype, far.policy.name, far.policy.context_window) == ("float32", "m", 512)
        described = await far.llm.describe()
        assert (described["engine_version"], described["logprobs_mode"]) == ("0.30.0", "processed_logprobs")
        assert far.log_path is None


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        ({"dev": False}, {}, "start vLLM with VLLM_SERVER_DEV_MODE=1"),
        ({"key": True}, {}, "asks for a key: start it without --api-key"),
        ({"swapped": {300: 301}}, {}, "has another tokenizer than tiny: ids 0 to 467 mean another text there"),
        ({"vocabulary": 300}, {}, "has another tokenizer than tiny: it refuses ids 0 to 467 (Token id 467 is out of"),
        ({"detokenize": False}, {}, "does not say which text token ids mean"),
        ({"processed": False}, {}, "start it with --logprobs-mode processed_logprobs"),
        ({"extension": ""}, {}, f"start it with --worker-extension-cls {EXTENSION}"),
        ({}, {"served": "n"}, "serves no model 'n'; it serves m"),
        ({}, {"lora_rank": 8}, "takes no adapter of rank 8 while it runs: start it with --enable-lora"),
        ({"lora": {"max_lora_rank": 4}, "runtime_lora": True}, {"lora_rank": 8}, "takes no adapter of rank 8"),
        ({"lora": {"max_lora_rank": 8}}, {"lora_rank": 8}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
    ],
)
async def test_what_cannot_be_trained_with_is_refused_before_the_run(folder, facts, options, message):
    async with running(folder, **facts) as theirs:
        with pytest.raises(ConfigError) as caught:
            await engine(theirs, folder, **options).__aenter__()
    assert message in str(caught.value)
    assert "engines" in str(caught.value)


async def test_a_gpu_build_needs_no_extension(folder):
    async with running(folder, device="cuda", extension="") as theirs, engine(theirs, folder) as far:
        theirs.seen.append(folder)
        await far.load(folder, 1)
        assert not far.counts_tokens  # so that requests end before an update
    assert theirs.called == [f"reload_weights {folder.name}"]


async def test_nothing_there(folder):
    theirs = TheirVLLM(folder)
    theirs.port = 9  # discard: nothing listens
    with pytest.raises(EngineUnavailable, match="no engine at"):
        await engine(theirs, folder).__aenter__()


async def test_weights_that_it_does_not_see_name_the_shared_folder(folder):
    async with running(folder) as theirs, engine(theirs, folder) as far:
        with pytest.raises(LLMError, match="must see the run's folder under the same path"):
            await far.load(folder, 1)
        assert far.version == 0
        theirs.seen.append(folder)
        await far.load(folder, 1)
        assert (far.version, theirs.called) == (1, [f"reload_weights {folder.name}", "refresh_heads"])


async def test_one_that_was_started_again_gets_the_weights_of_the_run(folder):
    theirs = TheirVLLM(folder)
    await theirs.start()
    theirs.seen.append(folder)
    async with engine(theirs, folder) as far:
        await far.load(folder, 3)
        await theirs.stop()
        with pytest.raises(EngineUnavailable, match="does not answer: start it again"):
            await far.restart()
        with pytest.raises(EngineUnavailable):
            await far.load(folder, 4)  # an update while it is away: it gets these weights when it is back
        theirs.called.clear()
        await theirs.start()
        await far.restart()
        assert (far.version, far.restarts) == (4, 1)
        stands_still = ["/pause abort", "/resume"]  # where it has only hung, in an update
        assert theirs.called == [*stands_still, f"reload_weights {folder.name}", "refresh_heads"]
        assert far.policy.name == "m"
    await theirs.stop()
