"""The environment `word-count`, which is found by name, and an OpenAI-compatible endpoint that answers its tasks."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from aiohttp import web

ENVIRONMENT = '''
"""Counts of a word in a text of other words."""

import os
import random
import time

from rlm_env.environment import Environment
from rlm_env.rollout import Score
from rlm_env.task import Task


class WordCount(Environment):
    name = "word-count"
    tips = "Count with code."

    def __init__(self, seed=0, lengths=(20, 200), spoilt="", flaw="", judge="", bonus=0.0, slow=0.0):
        """`flaw`: score() fails while there is a file of this name. `judge`: an LLM, or a file that gets a line per
        question."""
        self.seed, self.lengths, self.spoilt = seed, list(lengths), spoilt
        self.flaw, self.judge_log, self.bonus, self.slow = flaw, judge, bonus, slow

    def tasks(self, split):
        for index in range(1000):
            draw = random.Random(f"{self.seed}/{split}/{index}")
            words = [draw.choice(["spam", "ham", "egg"]) for _ in range(self.lengths[index % len(self.lengths)])]
            gold = str(words.count("spam"))
            if self.spoilt == "context":
                yield Task("How often?", 42, "1")
            if self.spoilt == "ids":
                yield Task("How often?", "spam", "1", id="same")
                continue
            spoilt_length = {"info": float("nan"), "length": "4k"}
            info = {"length_tokens": spoilt_length.get(self.spoilt, len(words))}
            yield Task("How often does spam occur?", " ".join(words), gold, info=info)

    def baselines(self):
        return {"always seven": lambda task: "7"}

    async def judge(self, task, rollout):
        if hasattr(self.judge_log, "complete"):
            question = {"role": "user", "content": f"Judge: {rollout.answer} against {task.gold}"}
            rollout.info["verdict"] = (await self.judge_log.complete([question])).text == "yes"
        elif self.judge_log:
            with open(self.judge_log, "a") as log:
                log.write(rollout.answer.replace("\\n", " ") + "\\n")
            rollout.info["verdict"] = rollout.answer.strip() == task.gold

    def score(self, task, rollout):
        time.sleep(self.slow)
        if self.flaw and os.path.exists(self.flaw) and task.id != "eval-0":
            raise KeyError("missing key")
        if self.judge_log:
            return Score(float(rollout.info["verdict"]), {"bonus": self.bonus})
        if self.spoilt and task.id.endswith(self.spoilt):
            raise ZeroDivisionError("a scorer with a defect")
        if self.spoilt == "metrics":
            return Score(1.0, {"reward": 0.25, "error": 1.0, "outcome": 7})
        return float(rollout.answer.strip() == task.gold)
'''

PROJECT = """
[project]
name = "word-count"
version = "0.1.0"

[project.entry-points."rlm_env.environments"]
word-count = "rlm_env_test_word_count:WordCount"
"""

RLM_CODE = """```repl
answers = llm_batch([f"Count spam in: {context[:40]}"])
answer["content"] = str(context.split().count("spam"))
answer["ready"] = True
```"""

BARE_REPLS = ("--set", "rollout.repl.preload=[]")
"""Flags of a run whose REPLs have no packages imported beforehand, which takes half a second."""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one, in which the environment `word-count` is found."""
    folder = tmp_path / "environments" / "word_count"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "rlm_env_test_word_count.py").write_text(dedent(ENVIRONMENT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class EvalEndpoint:
    """`/v1/chat/completions` in a thread of its own. The standard scaffold's prompts over `window` words overflow."""

    def __init__(self) -> None:
        self.window = 100
        self.delay = 0.0
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        """The header `Authorization` of each request."""
        self.before_reply: Callable[[int], None] = lambda count: None
        self.broken = False
        """Answers 400 to everything but the first small question of a run."""
        self.answer: Callable[[dict], web.Response | None] = lambda body: None
        """Answers a request in place of what follows."""
        self.untold: Callable[[dict], bool] = lambda body: False
        """Replies to which requests do not tell their tokens."""
        self.version: str | None = None
        """What `/version` tells, as a vLLM does; None: nothing."""
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self.url = ""
        self._port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> EvalEndpoint:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def stop(self) -> None:
        """Closes the port, as an engine that dies does."""
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
            self._runner = None

    def die(self) -> None:
        """The same from `before_reply`, in its own thread."""
        self._loop.create_task(self._runner.cleanup())

    def restart(self) -> None:
        """Answers again, at the same port."""
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    def end(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/version", self._tell_version)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"

    async def _tell_version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version}) if self.version else web.json_response({}, status=404)

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("Authorization"))
        self.before_reply(len(self.requests))
        await asyncio.sleep(self.delay)
        if (reply := self.answer(body)) is not None:
            return reply
        prompt = " ".join(str(message.get("content")) for message in body["messages"])
        words = len(prompt.split())
        if self.broken and prompt != "Reply with the word ready.":
            return web.json_response({"error": {"message": "this model is out of order"}}, status=400)
        if body["messages"][0]["role"] == "system":
            text = RLM_CODE
        elif prompt.startswith("Count spam in:"):
            text = "7"
        elif prompt.startswith("Judge: "):
            text = "yes" if prompt.split()[1] == prompt.split()[-1] else "no"
        elif words > self.window:
            said = f"maximum context length is {self.window} tokens. However, your messages resulted in {words} tokens"
            error = {"message": f"This model's {said}.", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        else:
            text = str(len(re.findall("spam", prompt)) - 1)  # the question has the word once
        usage = {"prompt_tokens": words, "completion_tokens": len(text.split()), "total_tokens": words}
        usage = None if self.untold(body) else usage
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def lines(path: Path) -> list[dict]:
    """The whole records of a JSONL file that may still be written to; none if there is no file."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def other_endpoint() -> Iterator[EvalEndpoint]:
    """A second one, at another port."""
    stub = EvalEndpoint().start()
    yield stub
    stub.end()


@pytest.fixture
def endpoint() -> Iterator[EvalEndpoint]:
    """A running endpoint."""
    stub = EvalEndpoint().start()
    yield stub
    stub.end()
