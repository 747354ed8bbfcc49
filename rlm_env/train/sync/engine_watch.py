"""How busy the engines are: vLLM's own counters and gauges, read every few seconds and summed up once a step.

Names are vLLM's, with `inference` for their prefix, as in prime-rl.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import fmean

from rlm_env.llm.base import LLMError

PREFIX = "vllm:"
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
"""Values of the moment, of which mean and largest are reported."""
COUNTERS = ("prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "generation_tokens")
"""Values that only grow, until the engine is started again."""
SECONDS = 2.0
"""Time between two readings."""


class EngineWatch:
    """Reads the statistics of engines. `reads`: of each, what returns them as text; it may raise LLMError, which is no
    reading of that one."""

    def __init__(self, *reads: Callable[[], Awaitable[str]], seconds: float = SECONDS) -> None:
        self._reads = reads
        self._seconds = seconds
        self._gauges: dict[str, list[float]] = defaultdict(list)
        self._last: list[dict[str, float]] = [{} for _ in reads]
        self._grown: dict[str, float] = defaultdict(float)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Reads while the body runs. An error of a reading other than LLMError is raised at the end."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended

    async def look(self) -> None:
        """One reading of each."""
        gauges: dict[str, list[float]] = defaultdict(list)
        for read, last in zip(self._reads, self._last, strict=True):
            try:
                found = parse_statistics(await read())
            except LLMError:
                continue
            for name in GAUGES:
                if name in found:
                    gauges[name].append(found[name])
            for name in COUNTERS:
                if name in found:
                    grown = found[name] - last.get(name, found[name])
                    self._grown[name] += found[name] if grown < 0 else grown  # below 0: a new engine counts from 0
                    last[name] = found[name]
        for name, values in gauges.items():
            self._gauges[name].append(_together(name, values))

    def take(self) -> dict[str, float]:
        """What was read since the last call: `inference/<gauge>/mean` and `/max`, `inference/prefix_cache_hit_rate`
        (share of prompt tokens), `inference/num_preemptions` and `inference/generation_tokens`; {} without readings."""
        found = {}
        for name, values in self._gauges.items():
            found |= {f"inference/{name}/mean": fmean(values), f"inference/{name}/max": max(values)}
        if queries := self._grown.get("prefix_cache_queries"):
            found["inference/prefix_cache_hit_rate"] = self._grown["prefix_cache_hits"] / queries
        for name in ("num_preemptions", "generation_tokens"):
            if name in self._grown:
                found[f"inference/{name}"] = self._grown[name]
        self._gauges.clear()
        self._grown.clear()
        return found

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._seconds)


def parse_statistics(text: str) -> dict[str, float]:
    """vLLM's metrics by name, without `vllm:` and `_total`; over several engines their sum, of a share the mean. Lines
    that are not such a metric are passed over."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in text.splitlines():
        if not line.startswith(PREFIX):
            continue
        name, _, rest = line.removeprefix(PREFIX).partition("{")
        value = rest.rpartition("}")[2] if rest else line.rpartition(" ")[2]
        name = name.split(" ")[0].removesuffix("_total")
        with contextlib.suppress(ValueError, IndexError):
            number = float(value.split()[0])
            if name in GAUGES + COUNTERS and math.isfinite(number):
                found[name].append(number)
    return {name: _together(name, values) for name, values in found.items()}


def _together(name: str, values: list[float]) -> float:
    """The value of several engines: of a share the mean, of numbers the sum."""
    return fmean(values) if name.endswith("_perc") else sum(values)
