#!/usr/bin/env python3
"""How fast contexts are generated, and how much memory a long one takes.

    python scripts/bench/generators.py [--quick] [--transcripts PATH]

Prints one JSON line per generator and length: megabytes of context per second (of the question if there is no context;
median of several tasks, question and gold included), tasks per second, and `share_of_floor`, that speed over the speed
of drawing ready-made lines of 100 characters with the same seeded draws and joining them, the least that a generator
does. For the longest ones also the peak memory over the size of context and gold, of Python's objects and of the
process (resident set), each in a separate run (1.0 is the text itself, 2.0 would be two copies). --quick leaves out
everything above 1M tokens.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlm_env.authoring.draw import Draw
from rlm_env.authoring.text import join_once
from rlm_env.environment import Environment
from rlm_env.registry import find_environment
from rlm_env.task import Task

LENGTHS = (1024, 65_536, 1_048_576, 4_194_304)


def cases(quick: bool, transcripts: str | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Title, environment and options of each measurement."""
    for length in LENGTHS[:3] if quick else LENGTHS:
        yield f"oolong standard {length}", "oolong-rlm", {"lengths": length}
        yield f"oolong easy {length}", "oolong-rlm", {"vocabulary": "easy", "lengths": length}
        yield f"oolong pairs {length}", "oolong-pairs-rlm", {"lengths": length}
        if length > LENGTHS[0]:
            yield f"needle {length}", "needle-rlm", {"lengths": 4 * length}
        yield f"codeqa {length}", "codeqa-rlm", {"lengths": length}
    for episodes in (1, 8) if quick else (1, 8, 24):
        options = {"dataset": "real", "episodes": episodes, "transcripts": transcripts}
        yield f"oolong real {episodes} episodes", "oolong-rlm", options
    yield "verbatim copy 16384 characters", "verbatim-copy-rlm", {"lengths": 16_384}
    yield "codeqa tiny", "codeqa-rlm", {"profile": "tiny"}
    yield "codeqa installed", "codeqa-rlm", {"dataset": "installed"}
    yield "math", "math-python-rlm", {}
    yield "deepdive", "deepdive-rlm", {}


def floor_speed(length: int) -> float:
    """Megabytes per second of drawing ready-made lines of 100 characters: the least that a generator does."""
    lines = [f"{i:099d}\n" for i in range(1000)]
    draw = Draw("floor")
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        text = join_once(deque(draw.choice(lines) for _ in range(max(1, length // 100))))
        rates.append(len(text) / 1e6 / (time.perf_counter() - started))
    return statistics.median(rates)


def size_of(task: Task) -> int:
    """Characters of the context and the gold, or of the question if there is no context."""
    if isinstance(task.context, dict):
        return sum(len(path) + len(text) for path, text in task.context.items()) + len(task.gold)
    return len(task.context) + len(task.gold) if task.context else len(task.question)


def timed(env: Environment, n: int) -> tuple[float, float, int]:
    """Median megabytes per second over `n` tasks, tasks per second, and the characters of the last one."""
    rates, tasks = [], iter(env.tasks("eval"))
    size = size_of(next(tasks))
    begun = time.perf_counter()
    for _ in range(n):
        started = time.perf_counter()
        size = size_of(next(tasks))
        rates.append(size / 1e6 / (time.perf_counter() - started))
    return statistics.median(rates), n / (time.perf_counter() - begun), size


def peak_over_size(env: Environment) -> float:
    """Peak of traced memory while one task is made, over its characters (ASCII: bytes)."""
    tasks = iter(env.tasks("train"))
    next(tasks)
    tracemalloc.start()
    try:
        task = next(tasks)
        return tracemalloc.get_traced_memory()[1] / size_of(task)
    finally:
        tracemalloc.stop()


def resident_over_size(name: str, options: dict[str, Any]) -> float:
    """Growth of the process's peak resident set while one task is made, over its characters. Call it in a
    fresh process: a peak never falls."""
    env = find_environment(name, **options)
    before = peak_resident()
    task = next(iter(env.tasks("train")))
    return (peak_resident() - before) / size_of(task)


def peak_resident() -> int:
    """Bytes. Not `getrusage`, whose peak a child takes over from its parent."""
    line = next(line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nothing above 1M tokens")
    parser.add_argument("--transcripts", help="path of the transcripts; default: what OOLONG_TRANSCRIPTS names")
    args = parser.parse_args()
    for title, name, options in cases(args.quick, args.transcripts):
        try:
            env = find_environment(name, **options)
        except (FileNotFoundError, ImportError) as error:
            print(json.dumps({"generator": title, "skipped": str(error)}))
            continue
        length = options.get("lengths", 0)
        rate, tasks, size = timed(env, 3 if length > LENGTHS[0] and length != 16_384 else 46)
        record = {"generator": title, "characters": size, "megabytes_per_second": round(rate, 1)}
        record |= {"tasks_per_second": round(tasks, 1), "share_of_floor": round(rate / floor_speed(size), 3)}
        if length >= LENGTHS[2]:
            record["peak_memory_over_size"] = round(peak_over_size(env), 2)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                record["resident_over_size"] = round(pool.apply(resident_over_size, (name, options)), 2)
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
