"""Random faults against one pool for a while, and a count of what is left behind.

    python scripts/bench/soak.py [--faults 500] [--seconds 0] [--repls 8] [--level guard] [--seed 0]
    python scripts/bench/soak.py --neighbors 4 --seconds 600    # attackers beside honest rollouts (soak_neighbors.py)

Ends with one JSON line: faults, states kept and lost, and for descriptors, child processes, temporary files and the
host's memory what they were before and after. Only what this run has made is counted, so that anything else may run
beside it. The exit status is 1 where something grew, a REPL was unusable, or the zygote died.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from typing import Any

from soak_neighbors import Neighbors

from rlm_env.repl import Repl, ReplConfig, ReplPool, SubError

PREFIX = f"rlm-env-soak-{os.getpid()}-"
"""Names of the temporary files that this run makes, in the host and in REPLs, begin with it."""
FAULTS = (
    "1 + 1",
    "while True: pass",
    "import time; time.sleep(60)",
    "sum(range(10**13))",
    "def spin():\n    while True: pass\nwhile True:\n    try: spin()\n    except BaseException: pass",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "import os; os._exit(3)",
    "import os; os.kill(os.getpid(), 9)",
    "import ctypes; ctypes.string_at(0)",
    "import os; os.closerange(0, 64)",
    "import os\nfor fd in range(3, 16):\n    try: os.write(fd, b'garbage' * 50)\n    except OSError: pass",
    "import os; os.write(4, b'\\xff' * 8)",
    "x = []\nwhile True: x.append(bytearray(2**22))",
    "[0] * 10**11",
    "print('x' * 10**7)",
    "import sys; sys.exit()",
    "raise KeyboardInterrupt",
    "llm_batch(['a'] * 50)",
    "llm_batch(['b' * 10**6] * 8)",
    "llm_batch(['fail', 'c'])[0].strip()",
    "from threading import Thread\nfor _ in range(8): Thread(target=llm_batch, args=(['d'],)).start()",
    "from threading import Thread\nfor _ in range(4): Thread(target=__import__('time').sleep, args=(3,)).start()",
    "while True: llm_batch(['e' * 3000] * 30)",
    "answer['content'] = 'x' * 10**8",
    "import os; os.fork()",
    "import builtins; vars(builtins).clear()",
    "open('/etc/passwd')",
    f"import tempfile; kept = tempfile.NamedTemporaryFile(prefix={PREFIX!r})",
    "import tempfile\nwhile True: tempfile.mkstemp()",
    "import os, tempfile\nos.chdir(tempfile.gettempdir())\nwhile True: os.mkdir('d' * 200); os.chdir('d' * 200)",
    "import tempfile; kept = [tempfile.TemporaryFile() for _ in range(9)]; [f.write(bytes(2**20)) for f in kept * 2]",
    "def f(): f()\nf()",
    "del context, answer, llm_batch",
)


async def handler(prompts: list) -> list:
    """Slow, sometimes failing, sometimes raising."""
    await asyncio.sleep(random.random() / 20)
    if random.random() < 0.05:
        raise ConnectionError("the soak's engine is down")
    return [SubError("told to fail") if p == "fail" else p[:1000] for p in prompts]


def own_processes() -> dict[int, str]:
    """All descendants of this process: id -> state ("Z": ended, and nobody has waited for it)."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
            parents[int(entry)] = int(parent), state
    found: dict[int, str] = {}
    before = -1
    while len(found) > before:
        before = len(found)
        family = {os.getpid(), *found}
        found |= {pid: state for pid, (parent, state) in parents.items() if parent in family}
    return found


def own_temporary_files() -> int:
    """What is left in this run's own directory, and files of REPLs where they should not be."""
    own = sum(len(folders) + len(files) for _, folders, files in os.walk(tempfile.gettempdir()))
    return own + sum(name.startswith(PREFIX) for name in os.listdir("/tmp"))


def footprint() -> dict[str, int]:
    """Counts that must not grow."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(own_processes()),
        "temporary_files": own_temporary_files(),
        "host_mb": resident,
        "tasks": len(asyncio.all_tasks()),
    }


class Soak:
    """The faults, and the tally of what came of them."""

    def __init__(self, pool: ReplPool, options: argparse.Namespace) -> None:
        self._pool = pool
        self._options = options
        self._random = random.Random(options.seed)
        self._end = time.monotonic() + options.seconds
        self.outcomes: Counter[str] = Counter()
        self.unusable: list[str] = []

    def _more(self) -> bool:
        return self.outcomes.total() < self._options.faults or time.monotonic() < self._end

    async def one_seat(self) -> None:
        """A REPL after another, each with a handful of faults."""
        while self._more():
            async with self._pool.open(
                context="context " * self._random.randrange(1, 10_000), llm_batch=handler
            ) as repl:
                for _ in range(self._random.randrange(1, 8)):
                    await self._fault(repl)
                    if not self._more():
                        break

    async def _fault(self, repl: Repl) -> None:
        code = self._random.choice(FAULTS)
        limits = {"timeout": self._random.choice((0.05, 0.3)), "wall_timeout": self._random.choice((0.5, 2.0))}
        call = asyncio.ensure_future(repl.run(code, **limits))
        if self._random.random() < 0.1:
            await asyncio.sleep(self._random.random() / 5)
            call.cancel()
        try:
            step = await call
            self.outcomes["lost" if step.state_lost else "kept"] += 1
        except asyncio.CancelledError:
            self.outcomes["cancelled"] += 1
        for _ in range(2):  # what a fault leaves behind (a thread that reads the channel) may strike once more
            check = await repl.run("40 + 2", timeout=20)
            if "42\n" in check.output:
                return
        self.unusable.append(f"{code!r}: {check.error}")


async def side_by_side(config: ReplConfig, options: argparse.Namespace) -> int:
    """Attackers beside honest rollouts, after as many honest ones that compute. 0 where the honest were not harmed."""
    before = footprint()
    neighbors = Neighbors(options.neighbors, options.neighbors, options.seed)
    control = await neighbors.run(config, options.seconds / 3, hostile=False)
    beside = await neighbors.run(config, options.seconds * 2 / 3, hostile=True)
    await asyncio.sleep(0.5)
    after = footprint()
    grown = [k for k in before if after[k] > before[k] + (256 if k == "host_mb" else 0)]
    # Two cells, of which one sleeps 0.02 s; what was booked is compared with the worst beside computing neighbors.
    booked = max(beside.booked) > max(2 * max(control.booked), 1.0)
    result = {
        "bench": "soak_neighbors",
        "level": config.level,
        "attacks": neighbors.attacks,
        "repls_ended": len(neighbors.ends),
        "honest": len(beside.seconds),
        "wrong": beside.wrong[:3] + control.wrong[:3],
        "median_s": round(beside.median, 3),
        "median_beside_computing_s": round(control.median, 3),
        "booked_worst_s": round(max(beside.booked), 3),
        "booked_worst_beside_computing_s": round(max(control.booked), 3),
        "before": before,
        "after": after,
        "grown": grown,
    }
    print(json.dumps(result))
    return int(bool(grown or beside.wrong or control.wrong or booked or beside.median > 1.25 * control.median))


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500, help="at least this many")
    parser.add_argument("--seconds", type=float, default=0, help="and at least this long")
    parser.add_argument("--repls", type=int, default=8, help="at a time")
    parser.add_argument("--level", default="guard", help="isolation level")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--neighbors", type=int, default=0, help="honest rollouts, and as many attackers beside them")
    options = parser.parse_args()
    random.seed(options.seed)
    config = ReplConfig(
        level=options.level,
        require=options.level,
        allow_unsafe=options.level == "bare",
        preload=(),
        memory_mb=256,
        interrupt_grace=0.1,
        tmp_mb=0 if options.level == "sealed" else 16,
    )
    with tempfile.TemporaryDirectory(prefix=PREFIX) as own:
        if os.geteuid() == 0:
            os.chmod(own, 0o711)  # REPLs may have user ids of their own
        tempfile.tempdir = own
        return await run(config, options)


async def run(config: ReplConfig, options: argparse.Namespace) -> int:
    """The soak that was asked for. Its exit status."""
    if options.neighbors:
        return await side_by_side(config, options)
    async with ReplPool(config) as pool:
        zygote = pool.zygote_pid
        async with pool.open(context="warm", llm_batch=handler) as repl:
            await repl.run("llm_batch(['b' * 10**6] * 8)")
        await asyncio.sleep(0.3)
        before = footprint()
        begin = time.monotonic()
        soak = Soak(pool, options)
        await asyncio.gather(*(soak.one_seat() for _ in range(options.repls)))
        seconds = time.monotonic() - begin
        await asyncio.sleep(0.5)
        after = footprint()
        survived = pool.zygote_pid == zygote and own_processes().get(zygote, "Z") != "Z"
    # Memory is allowed to settle somewhat higher; everything else has to be back where it was.
    grown = [k for k in before if after[k] > before[k] + (64 if k == "host_mb" else 0)]
    result: dict[str, Any] = {"bench": "soak", "level": options.level, "seconds": round(seconds, 1), **soak.outcomes}
    result |= {
        "before": before,
        "after": after,
        "grown": grown,
        "unusable": soak.unusable[:5],
        "zygote_alive": survived,
    }
    print(json.dumps(result))
    return int(bool(grown or soak.unusable or not survived))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
