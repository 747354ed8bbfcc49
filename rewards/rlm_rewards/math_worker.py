"""The process in which math-verify runs. `math_python.py` starts it by path; it is never imported.

Reads JSON lines `[gold, response]` and answers each with `1` or `0`. sympy can take forever, or all memory, over an
answer of twenty characters; here only this process pays: it is limited to `memory_bytes`, and a request that takes more
than `cpu_seconds` of processor time ends it, even inside a C function, because the signal keeps its default action.
The limit is processor time, not wall time, so that a busy machine changes no score.
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
            # 0: none of the library's own time limits, which need SIGALRM and cannot interrupt C code.
            found = verify(
                parse(f"\\boxed{{{gold}}}", parsing_timeout=0),
                parse(f"\\boxed{{{response}}}", parsing_timeout=0),
                timeout_seconds=0,
            )
        except Exception:  # sympy raises anything; the original scores 0 then
            found = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(bool(found)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
