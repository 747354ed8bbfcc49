#!/usr/bin/env python3
"""Measures the speed of the scorers on ordinary answers and their time on the worst ones.

    python scripts/bench/scoring.py [--quick]

Prints one JSON line per reward: scores per second on ordinary answers, and the seconds of the slowest of several
hostile inputs (ten megabytes each; --quick one), with its name. For math also the slowest of several short answers that
would keep sympy busy forever; the bound is `rlm_rewards.math_python.CPU_SECONDS` plus the start of a new worker.

Then prints one line per environment: milliseconds of a score in this process and in a scorer process
(`rlm_env/scoring/`), one after the other and 64 at once; what the scorer process adds (`added_ms`); their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable

from rlm_env import scoring
from rlm_env.registry import find_environment
from rlm_env.rollout import Rollout
from rlm_rewards import codeqa, deepdive, math_python, needle, oolong, verbatim_copy

TEXT = "The quick brown fox jumps over the lazy dog; " * 182  # 8,190 characters
SLIP = TEXT[:4000] + "x" + TEXT[4001:6000] + TEXT[6002:]
Score = Callable[[str], object]
CASES: dict[str, tuple[Score, str]] = {
    "oolong synth official": (lambda text: oolong.score(text, "[12]", "synth", "NUMERIC"), "Answer: 13"),
    "oolong synth strict": (lambda text: oolong.score(text, "[12]", "synth", "NUMERIC", "strict"), "Answer: 13"),
    "oolong real official": (lambda text: oolong.score(text, "Fireball, Shield", "real"), "\\boxed{Shield, Bless}"),
    "oolong pairs": (lambda text: oolong.pairs_f1(text, "(1, 2)\n(3, 4)"), "(1, 2), (4, 5)"),
    "oolong pairs strict": (
        lambda text: oolong.score(text, "(1, 2)\n(3, 4)", "pairs", mode="strict"),
        "(1, 2), (4, 5)",
    ),
    "codeqa official": (codeqa.extract_choice, "I read it. The correct answer is (B)."),
    "codeqa strict": (lambda text: codeqa.extract_choice(text, "strict"), "I read it. The correct answer is (B)."),
    "deepdive verdict": (deepdive.judge_verdict, "Correct: yes\nExtracted final answer: Paris"),
    "deepdive rules": (lambda text: deepdive.score(text, "5 March 2024"), "Answer: on March 5th, 2024"),
    "deepdive redundancy": (lambda text: deepdive.redundancy(text.split("\n")), "a b c\nb c d\nc d e\nd e f"),
    "needle strict": (lambda text: needle.score(text, "4401937", "strict"), "Answer: 4401937"),
    "verbatim copy, 8K": (lambda text: verbatim_copy.metrics(TEXT, text), SLIP),
    "math": (lambda text: math_python.score(text, "\\frac{1}{2}"), "So it is \\boxed{\\frac{2}{4}}."),
}
ENDLESS = ["9^{9^{9^{9}}}", "100000000000!", "\\prod_{n=1}^{10000000} n", "(" * 4000 + ")" * 4000]


def hostile(megabytes: int) -> dict[str, str]:
    """Long inputs of the kind that slows parsers down."""
    size = megabytes * 1_000_000
    pieces = [
        "a",
        " ",
        "*",
        "7",
        "\\boxed{",
        "{",
        "(1, ",
        "answer is ",
        "correct   ",
        "**correct:** ",
        "</answer>",
        "e\u0301",
    ]
    return {repr(piece): piece * (size // len(piece)) for piece in pieces}


def rate(score: Score, text: str, seconds: float) -> float:
    score(text)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        score(text)
        done += 1
    return done / (time.perf_counter() - started)


def slowest(score: Score, texts: dict[str, str]) -> tuple[float, str]:
    found = []
    for name, text in texts.items():
        started = time.perf_counter()
        score(text)
        found.append((time.perf_counter() - started, name))
    return max(found)


ENVIRONMENTS = {
    "needle-rlm": "Answer: 4401937",
    "oolong-rlm": "Answer: 13",
    "codeqa-rlm": "The correct answer is (B)",
    "deepdive-rlm": "Answer: Velstad",
    "verbatim-copy-rlm": "abc",
    "math-python-rlm": "\\boxed{5}",
}
AT_ONCE = 64


async def in_a_process(name: str, answer: str, rounds: int) -> dict[str, object]:
    """Times an environment's score in this process and in a scorer process."""
    environment = find_environment(name)
    task = next(iter(environment.tasks("eval")))
    rollout = Rollout.from_answer(task, answer)
    started = time.perf_counter()
    await scoring.score_rollout(environment, task, rollout)
    first = time.perf_counter() - started

    async def milliseconds(work: Callable[[], Awaitable[object]]) -> float:
        found = []
        for _ in range(rounds):
            started = time.perf_counter()
            await work()
            found.append((time.perf_counter() - started) * 1000)
        return statistics.median(found)

    async def here() -> None:
        scoring.score(environment, task, rollout)

    async def many() -> None:
        await asyncio.gather(*(scoring.score_rollout(environment, task, rollout) for _ in range(AT_ONCE)))

    one = await milliseconds(here)
    apart = await milliseconds(lambda: scoring.score_rollout(environment, task, rollout))
    together = await milliseconds(many) / AT_ONCE
    numbers = {
        "first_s": first,
        "here_ms": one,
        "process_ms": apart,
        "at_once_ms": together,
        "added_ms": apart - one,
        "ratio": apart / one,
    }
    return {"environment": name, **{key: round(number, 3) for key, number in numbers.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="inputs of one megabyte, shorter measurements")
    quick = parser.parse_args().quick
    texts = hostile(1 if quick else 10)
    for name, (score, ordinary) in CASES.items():
        line: dict[str, object] = {"reward": name, "scores_per_s": round(rate(score, ordinary, 0.2 if quick else 1.0))}
        seconds, worst = slowest(score, texts)
        line |= {"worst_s": round(seconds, 3), "worst": worst}
        if name == "math":
            seconds, worst = slowest(score, {text[:16]: f"\\boxed{{{text}}}" for text in ENDLESS})
            line |= {"endless_s": round(seconds, 1), "endless": worst}
        print(json.dumps(line), flush=True)
    for name, answer in ENVIRONMENTS.items():
        print(json.dumps(asyncio.run(in_a_process(name, answer, 20 if quick else 200))), flush=True)


if __name__ == "__main__":
    main()
