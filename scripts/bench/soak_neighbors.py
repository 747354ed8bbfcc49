"""The soak's second half: attackers and honest rollouts side by side, on one event loop and one pool of REPLs.

The honest ones are whole rollouts with a scripted root LLM. Their control is as many honest REPLs that compute in the
attackers' place: for as long, before.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import rlm_env
from rlm_env.llm.base import LLM
from rlm_env.messages import Completion
from rlm_env.repl import ReplConfig, ReplPool, ReplPools
from rlm_env.scaffolds.config import RLMConfig

TOOLS = """
import os, struct, threading, time
def send(data, fd=4):
    view = memoryview(data)
    try:
        while view: view = view[os.write(fd, view):]
    except OSError: pass
def number(n): return b'\\xce' + struct.pack('>I', n)
def frame(*fields): body = b''.join(fields); return struct.pack('<I', len(body)) + body
def batch(n, item=b'\\xa1x'): return frame(b'\\xa5batch', number(n), b'\\x01\\x00', item)
def later(f): threading.Timer(0.05, f).start()
"""
ATTACKS = (
    "send(struct.pack('<I', 64 * 2**20)); [send(b'\\xa2ab' * 2**18) for _ in range(80)]",
    "send(frame(b'\\xc0' * 2**20))",
    "send(frame(b'\\xa2ab' * 10**6), 3)",
    "j = b'{\"messages\":[' + b'{},' * 9000 + b'{}]}'; send(batch(10**6, b'\\xc6' + struct.pack('>I', len(j)) + j))",
    'j = b\'{"prompt":"x","n":1e999}\'; send(batch(10**6, b\'\\xc4\' + bytes([len(j)]) + j))',
    "later(lambda: [send(b''.join(batch(i) for i in range(n, n + 500))) for n in range(10**6, 2 * 10**6, 500)])",
    "llm_batch(['x' * 2**20] * 40)",
    "llm_batch(['\\U0001f600' * 2**18] * 40)",
    "llm_batch(['x'] * 50_000)",
    "from concurrent.futures import ThreadPoolExecutor as P\n"
    "with P(16) as p: list(p.map(lambda i: llm_batch(['x']), range(20_000)))",
    "send(frame(b'\\xa8announce', number(10**6), number(9), number(2**28))); time.sleep(30)",
    "threading.stack_size(32768)\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
    "x = []\nwhile True: x.append(bytearray(2**22))",
    "import hashlib\nhog = lambda: hashlib.pbkdf2_hmac('md5', b'', b'', 10**7)\n"
    "for _ in range(8): threading.Thread(target=hog).start()",
    "import tempfile\nfor i in range(900): open(tempfile.gettempdir() + f'/{i}', 'wb')\nwhile True:\n"
    "    f = open(tempfile.gettempdir() + '/x', 'wb'); f.write(bytes(2**20)); f.close(); os.unlink(f.name)",
    "import tempfile; kept = [tempfile.TemporaryFile() for _ in range(40)]; [f.write(bytes(2**20)) for f in kept]",
    "while True: pass",
    "os._exit(1)",
    "answer['content'] = 'x' * 10**8",
    "print('x' * 10**8)",
)
COMPUTE = "s = 0\nfor i in range(10**9): s += i"
"""What an honest REPL does in an attacker's place until it is stopped."""


class Scripted(LLM):
    """The root gives two cells; a sub-LLM answers with the length of its prompt, at once."""

    name = "scripted"

    async def complete(self, messages: list, tools: Any = None, sampling: Any = None) -> Completion:
        await asyncio.sleep(0.01)
        if messages[0]["role"] != "system":
            return Completion(str(len(messages[-1]["content"])), finish_reason="stop")
        turn = sum(message["role"] == "assistant" for message in messages)
        cells = (
            "parts = [context[i:i + 500] for i in range(0, len(context), 500)]\nlengths = llm_batch(parts)",
            "import time; time.sleep(0.02)\nanswer['content'] = str(sum(map(int, lengths)))\nanswer['ready'] = True",
        )
        return Completion(f"```repl\n{cells[min(turn, 1)]}\n```", finish_reason="stop")


class Lengths(rlm_env.Environment):
    """How long is the context?"""

    def tasks(self, split: str) -> Any:
        for size in range(1000, 20_000, 500):
            yield rlm_env.Task(question="How long is it?", context="x" * size, gold=str(size))

    def score(self, task: rlm_env.Task, rollout: rlm_env.Rollout) -> float:
        return float(rollout.answer == task.gold)


@dataclass
class Honest:
    """What came of honest rollouts."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    booked: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Neighbors:
    """Runs honest rollouts beside others, for a while each."""

    def __init__(self, honest: int, others: int, seed: int) -> None:
        self._honest, self._others = honest, others
        self._random = random.Random(seed)
        self.attacks = 0
        self.ends: list[str] = []

    async def run(self, config: ReplConfig, seconds: float, *, hostile: bool) -> Honest:
        """Honest rollouts beside attackers, or beside as many that compute."""
        found = Honest()
        end = time.monotonic() + seconds
        async with ReplPools() as pools:
            pool = await pools.get(config)
            env = rlm_env.RLMEnv(Lengths(), RLMConfig(repl=config, max_observation_chars=8192), pools=pools)
            other = self._attack if hostile else self._compute
            others = [asyncio.create_task(other(pool, end)) for _ in range(self._others)]
            await asyncio.gather(*(self._roll(env, end, found) for _ in range(self._honest)))
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        return found

    async def _roll(self, env: rlm_env.RLMEnv, end: float, found: Honest) -> None:
        tasks, llm = list(env.tasks("eval")), Scripted()
        while time.monotonic() < end:
            task = self._random.choice(tasks)
            begin = time.monotonic()
            rollout = await env.rollout(task, llm)
            found.seconds.append(time.monotonic() - begin)
            found.booked.append(rollout.timing.code)
            if env.score(task, rollout).value != 1.0 or rollout.metrics["cells_failed"] or "repl_ends" in rollout.info:
                found.wrong.append(
                    f"{rollout.stop_reason} {rollout.error} {[turn.error for turn in rollout.turns]}"[:500]
                )

    async def _attack(self, pool: ReplPool, end: float) -> None:
        async def answer(prompts: list) -> list:
            await asyncio.sleep(0.01)
            return ["ok"] * len(prompts)

        while time.monotonic() < end:
            async with pool.open(llm_batch=answer) as repl:
                for _ in range(3):
                    await repl.run(TOOLS)
                    await repl.run(self._random.choice(ATTACKS), timeout=0.5, wall_timeout=2.0)
                    await asyncio.sleep(0.3)
                    self.attacks += 1
                self.ends += repl.ends

    async def _compute(self, pool: ReplPool, end: float) -> None:
        async with pool.open() as repl:
            while time.monotonic() < end:
                with contextlib.suppress(asyncio.CancelledError):
                    await repl.run(COMPUTE, timeout=1.0)
