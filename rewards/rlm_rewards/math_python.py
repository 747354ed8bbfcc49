"""Scores a mathematical answer by comparing it with the gold in math-verify (`pip install 'rlm-env[math]'`).

`official` is MathRubric of verifiers 0.1.9. It takes the text after the last `</think>`, and of that the content of the
last `\\boxed{...}`, or all of it if no box is closed; gold and answer are each put into a box and compared.

`strict` is ours. It gives no credit without a closed box. It reads what people and Python write for the same value
(`math_forms.py`), and refuses what math-verify overlooks: another unit, scale, currency or base, chains of equations
that do not hold (`1=2=3`), several answers where one is asked for, inequalities for numbers. A unit may be left out.

math-verify runs in a worker process (`math_worker.py`), which starts with the first score and serves all later ones. A
comparison that exceeds `CPU_SECONDS` or `MEMORY_BYTES`, or crashes the worker, scores 0.0, as does one in which the
library raises; the worker is then replaced. Extracted answers longer than `MAX_LENGTH` characters score 0.0 without
being compared. Safe in threads (one comparison at a time) and after a fork (each process starts its own worker). Not
covered: an LLM judge for answers that math-verify cannot parse.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlm_rewards import math_forms
from rlm_rewards.verbatim_copy import extract_box

MODES = ("official", "strict")
MAX_LENGTH = 10_000
BARE_BOX = re.compile(r"\\boxed\s*([-+]?[0-9][0-9.,/]*|\\[a-z]+(?![a-z{]))")
"""A box without braces around a number or a symbol: `\\boxed5`. For `strict`."""
CPU_SECONDS = 5.0
"""Processor time of one comparison; math-verify's own limit is 5 s of wall time."""
PATIENCE_SECONDS = 5.0
"""For a worker that has closed its output to end: its exit status says why."""
MEMORY_BYTES = 2 * 1024**3
"""Address space of the worker."""
WALL_SECONDS = 120.0
"""A worker that neither computes nor replies for so long (a stopped process, a swapping machine) is given up."""


def score(answer_text: Any, gold: Any, mode: str = "official") -> float:
    """1.0 if the answer equals `gold` (LaTeX, without a box), else 0.0.

    Raises ValueError for an unknown mode, ImportError if math-verify is not installed, RuntimeError if the worker does
    not start, is killed from outside or does not reply, and nothing else.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    return scores(answer_text, gold, (mode,))[mode]


def scores(answer_text: Any, gold: Any, modes: Sequence[str] = MODES) -> dict[str, float]:
    """The score in each mode. A comparison that was ended in one mode is not tried again in the next."""
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError("rlm_rewards.math_python needs math-verify: pip install 'rlm-env[math]'")
    found = dict.fromkeys(modes, 0.0)
    if not isinstance(gold, str | int | float):
        return found
    reference = gold_text(gold)
    for mode in modes:
        response = extract(answer_text, mode)
        if not response.strip() or not reference.strip() or max(len(response), len(reference)) > MAX_LENGTH:
            continue
        question = _strict_question(reference, response) if mode == "strict" else _question([(reference, response)])
        equal = question is not None and _helper.ask(question)
        if equal is None:
            break
        found[mode] = float(equal)
    return found


Question = dict[str, Any]
"""What the worker reads; its fields are described in `math_worker.py`."""


def _question(pairs: list[tuple[str, str]], sides: Sequence[tuple[str, str]] = (), exact: bool = False) -> Question:
    return {"pairs": pairs, "sides": sides, "exact": exact}


def _strict_question(gold: str, response: str) -> Question | None:
    """None if the two cannot be equal."""
    mine, theirs = math_forms.read(gold), math_forms.read(response)
    if not math_forms.may_be_equal(mine, theirs):
        return None
    return _question(math_forms.pairs(mine, theirs), theirs.sides, exact=True)


def extract(answer_text: Any, mode: str = "official") -> str:
    """The answer within a text; empty if there is none."""
    if not isinstance(answer_text, str):
        return ""
    text = answer_text.rpartition("</think>")[2].strip()
    inside = extract_box(text)  # the very same text where there is no closed box
    if mode == "official":
        return inside
    bare = BARE_BOX.findall(text[-MAX_LENGTH:]) if "\\boxed{" not in text else []
    return bare[-1] if bare else "" if inside is text else inside


def gold_text(gold: str | float) -> str:
    try:
        return str(gold)
    except ValueError:  # an int with more digits than Python writes
        return ""


class MathWorker:
    """A running `math_worker.py` and the two ends of its pipes."""

    def __init__(self) -> None:
        # By path and without its folder on sys.path: no module of ours can stand in for one of sympy's.
        path = Path(__file__).with_name("math_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(path), str(CPU_SECONDS), str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self.process.stdin is not None  # pipes, as asked for
        assert self.process.stdout is not None
        self._requests, self._replies = self.process.stdin, self.process.stdout

    def write(self, request: bytes) -> None:
        while request:
            request = request[os.write(self._requests.fileno(), request) :]

    def read_line(self) -> bytes:
        """The next line, of a few bytes. Raises EOFError if the worker has died, RuntimeError if it does not reply."""
        line, deadline = b"", time.monotonic() + WALL_SECONDS
        poll = select.poll()  # select() cannot watch descriptors above 1024
        poll.register(self._replies, select.POLLIN)
        while not line.endswith(b"\n"):
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise RuntimeError(f"the worker of rlm_rewards.math_python did not reply in {WALL_SECONDS:g} s")
            piece = os.read(self._replies.fileno(), 64)
            if not piece:
                raise EOFError
            line += piece
        return line

    def end(self, patience: float = 0.0) -> int:
        """Ends the process, at once or after it had `patience` seconds to end itself; returns its exit status."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._requests.close()
        self._replies.close()
        return self.process.wait()


class Helper:
    """Keeps one worker: started when first needed, replaced when it dies, gone with our process at the latest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: MathWorker | None = None

    def verify(self, gold: str, response: str) -> bool:
        """The verdict of math-verify; False also where the comparison raised or exceeded a limit."""
        return self.ask(_question([(gold, response)])) is True

    def ask(self, question: Question) -> bool | None:
        """The worker's answer; None if the question exceeded a limit or crashed the worker.

        Raises RuntimeError if that was not the question's fault.
        """
        # ASCII, so that lone surrogates reach the worker as they are.
        request = (json.dumps(question) + "\n").encode("ascii")
        with self._lock:
            for _ in range(2):
                try:
                    if self._worker is not None and self._worker.process.poll() is not None:
                        self._stop()  # it died idle
                    worker = self._worker or self._start()
                    worker.write(request)
                    return worker.read_line() == b"1\n"
                except (BrokenPipeError, EOFError):
                    if self._stop(PATIENCE_SECONDS) != -signal.SIGKILL:
                        return None
                except BaseException:
                    self._stop()  # interrupted: its reply would be taken for the next request's
                    raise
        raise RuntimeError("the worker of rlm_rewards.math_python was killed twice; is the machine out of memory?")

    def _start(self) -> MathWorker:
        self._worker = worker = MathWorker()
        try:
            worker.read_line()
        except EOFError:
            raise RuntimeError(
                "the helper of rlm_rewards.math_python does not start; try `import math_verify`"
            ) from None
        return worker

    def _stop(self, patience: float = 0.0) -> int:
        """Ends the worker; returns its exit status."""
        worker, self._worker = self._worker, None
        return 0 if worker is None else worker.end(patience)

    def close(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """In a forked child: the worker is the parent's, and the lock may be held forever."""
        self._lock, self._worker = threading.Lock(), None


_helper = Helper()
atexit.register(_helper.close)
os.register_at_fork(after_in_child=_helper.forget)
