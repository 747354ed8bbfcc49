"""Shared by the parts of the REPL's bench: printing a figure, timing calls in turn, opening pools, reading /proc."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from rlm_env.repl import ReplConfig, ReplPool

MEGABYTE = 2**20
_quick = False


def be_quick() -> None:
    """Fewer repetitions from now on."""
    global _quick
    _quick = True


def times(quick: int, full: int) -> int:
    """How often to repeat something."""
    return quick if _quick else full


def say(name: str, value: float, bound: float | None = None, **details: Any) -> None:
    """One line of result. `bound`: the value should not be above it."""
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in details.items()}
    line = {"bench": name, "value": round(value, 4), "bound": bound, **shown}
    if bound is not None:
        line["within"] = bool(value <= bound)
    print(json.dumps(line), flush=True)


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    begin = time.perf_counter()
    await call()
    return time.perf_counter() - begin


async def alternate(count: int, *calls: Callable[[], Awaitable[Any]]) -> list[float]:
    """The median seconds of each call, run in turn so that a noisy moment hits all of them."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(count):
        for call, own in zip(calls, seconds, strict=True):
            own.append(await timed(call))
    return [statistics.median(own) for own in seconds]


def pool(level: str = "guard", **options: Any) -> ReplPool:
    return ReplPool(ReplConfig(level=level, require=level, allow_unsafe=True, **options))


def pss(pid: int) -> int:
    """Proportional set size in bytes."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))


def parent_of(pid: int, zombies: bool = True) -> int | None:
    """The parent's id; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
            return None if state == "Z" and not zombies else int(parent)
    except OSError:
        return None
