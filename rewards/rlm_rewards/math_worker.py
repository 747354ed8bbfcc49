"""The process in which math-verify runs: `math_python` starts it, it is not imported.

Reads lines of JSON `[gold, response]` and answers each with `1` or `0`. sympy may take for ever, or all memory, over
an answer of twenty characters; here that costs this process alone: it may hold `memory_bytes`, and a request that
takes more than `cpu_seconds` of processor time ends it, also in the middle of a C function, since the signal keeps
its default action. Processor time, not wall time, so that a busy machine changes no score.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys


def main(cpu_seconds: float, memory_bytes: int) -> None:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)  # noqa: T201 - the answer channel
    for line in sys.stdin:
        gold, response = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            # The library's own time limits need the main thread's alarm and cannot interrupt C code.
            found = verify(
                parse(f"\\boxed{{{gold}}}", parsing_timeout=None),
                parse(f"\\boxed{{{response}}}", parsing_timeout=None),
                timeout_seconds=None,
            )
        except Exception:  # sympy raises anything; the original scores 0 then
            found = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(bool(found)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
