"""Whether a mathematical answer equals the gold, by math-verify (`pip install 'rlm-env[math]'`).

`official` is MathRubric of verifiers 0.1.9: the text behind the last `</think>`; of it what the last `\\boxed{...}`
holds, or all of it where there is no closed box; gold and answer are put into a box each and compared.
`strict` gives no credit without a closed box.

math-verify runs in a helper process that is started with the first score, used again for all others and replaced when
a comparison exceeds `CPU_SECONDS` or `MEMORY_BYTES`, or crashes it: the score is 0.0 then, as it is where the library
raises. Extracted answers above `MAX_LENGTH` characters score 0.0 unread. Safe in threads (one comparison at a time) and
after a fork (each process has a helper of its own). Not covered: judges for answers that math-verify cannot read.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rlm_rewards.verbatim_copy import extract_box

MODES = ("official", "strict")
MAX_LENGTH = 10_000
CPU_SECONDS = 5.0
"""Processor time of a comparison; math-verify's own limit is 5 s of wall time."""
MEMORY_BYTES = 2 * 1024**3
"""Address space of the helper."""
WALL_SECONDS = 120.0
"""After so long a helper is given up that neither computes nor answers (a machine that swaps, a stopped process)."""


def score(answer_text: Any, gold: Any, mode: str = "official") -> float:
    """1.0 where the answer equals `gold` (LaTeX, without a box), else 0.0.

    Raises ValueError on an unknown mode and ImportError where math-verify is not installed, on nothing else.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError("rlm_rewards.math_python needs math-verify: pip install 'rlm-env[math]'")
    response = extract(answer_text, mode)
    if not response.strip() or not isinstance(gold, str | int | float):
        return 0.0
    reference = text_of(gold)
    if len(response) > MAX_LENGTH or len(reference) > MAX_LENGTH or not reference.strip():
        return 0.0
    return float(_helper.verify(reference, response))


def extract(answer_text: Any, mode: str = "official") -> str:
    """The answer that a text gives; empty where it gives none."""
    if not isinstance(answer_text, str):
        return ""
    text = answer_text.rpartition("</think>")[2].strip()
    inside = extract_box(text)  # the very same text where there is no closed box
    return "" if mode == "strict" and inside is text else inside


def text_of(gold: str | float) -> str:
    try:
        return str(gold)
    except ValueError:  # an int with more digits than Python writes
        return ""


class Helper:
    """One process that compares. It is started when needed and ends with ours, at the latest when its input closes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def verify(self, gold: str, response: str) -> bool:
        """False also where the comparison raised, or broke a limit."""
        # ASCII, so that lone surrogates reach the helper as they are.
        request = (json.dumps([gold, response]) + "\n").encode("ascii")
        with self._lock:
            try:
                if self._process is not None and self._process.poll() is not None:
                    self._stop()  # it died idle
                process = self._process or self._start()
                while request:
                    request = request[os.write(process.stdin.fileno(), request) :]
                return self._line(process) == b"1\n"
            except (BrokenPipeError, EOFError):
                self._stop()
                return False
            except BaseException:
                self._stop()  # interrupted: its answer would be taken for the next one's
                raise

    def _start(self) -> subprocess.Popen[bytes]:
        # By path and without its folder on sys.path: no module of ours can stand in for one of sympy's.
        worker = Path(__file__).with_name("math_worker.py")
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", str(worker), str(CPU_SECONDS), str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        try:
            self._line(process)
        except EOFError:
            raise RuntimeError(
                "the helper of rlm_rewards.math_python does not start; try `import math_verify`"
            ) from None
        return process

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The helper's next line, of a few bytes. Raises EOFError where it died or says nothing in time."""
        line, deadline = b"", time.monotonic() + WALL_SECONDS
        poll = select.poll()  # select() cannot watch descriptors above 1024
        poll.register(process.stdout, select.POLLIN)
        while not line.endswith(b"\n"):
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            piece = os.read(process.stdout.fileno(), 64) if ready else b""
            if not piece:
                raise EOFError
            line += piece
        return line

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def close(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """In a forked child: the helper is the parent's, and its lock may be held for ever."""
        self.__init__()


_helper = Helper()
atexit.register(_helper.close)
os.register_at_fork(after_in_child=_helper.forget)
