"""The configuration of a pool and the result of a step: the plain data of the public API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LEVELS = ("bare", "sealed", "guard", "jail")
"""Isolation levels, weakest first. See docs/sandbox.md."""
_POSITIVE = (
    "memory_mb",
    "file_mb",
    "max_answer_chars",
    "max_batch_items",
    "max_batch_bytes",
    "pool_batch_mb",
    "interrupt_grace",
    "start_timeout",
)


class ReplError(Exception):
    """A REPL cannot be started or is closed. Mistakes of the model's code never raise it."""


class SandboxError(ReplError):
    """The sandbox that was asked for does not work on this machine."""

    def __init__(self, message: str, reasons: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = reasons or {}
        """Isolation level -> why it is not used."""


@dataclass(frozen=True)
class SubError:
    """A failed sub-call in a batch. In the REPL it tests false, prints `reason` and is not a str."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class ReplConfig:
    """Isolation and limits of REPLs. Every default is safe."""

    level: str = "guard"
    """Isolation level: one of LEVELS, or "best" for the highest that works on this machine. Where it does not work,
    the next lower one is used, down to `require`."""
    require: str | None = None
    """Refuse to run below this level instead of downgrading."""
    allow_unsafe: bool = False
    """Permit the level `bare`, which confines nothing."""
    allow_fork: bool = False
    """Permit `Repl.fork` and checkpoints. The system-call filter then allows one form of `clone`, which hostile code
    can use to make further processes (see docs/sandbox.md). Ordinary forks and programs stay denied."""
    checkpoint: bool = False
    """Fork the REPL before each step, so that a step that had to be killed is undone instead of the state being
    lost. Needs allow_fork. Skipped where other threads are running in the REPL."""
    preload: tuple[str, ...] = ("numpy", "scipy", "sympy")
    """Packages imported once, before REPLs are forked. Missing ones are left out and reported."""
    memory_mb: int = 2048
    """Address space a REPL's code may add, in MiB; beyond it, MemoryError."""
    file_mb: int = 64
    """Size of what a cell may write past Python's streams, in MiB."""
    tmp_mb: int = 0
    """Size of a private temporary directory, in MiB (each file of it at most `file_mb`); 0: none. TMPDIR, HOME and
    `tempfile` lead to it, it is removed with the REPL, and a fork begins with an empty one. Needs the level guard or
    jail (see docs/sandbox.md)."""
    max_output_chars: int = 8192
    """Characters of a step's output; head and tail are kept."""
    max_answer_chars: int = 1_000_000
    """Characters of `answer["content"]`."""
    max_batch_items: int = 100_000
    """Prompts of one `llm_batch`."""
    max_batch_bytes: int = 256 * 2**20
    """Characters of prompts of one REPL that may be unanswered at a time."""
    pool_batch_mb: int = 1024
    """Memory that unanswered prompts of all REPLs of a pool may take on the host, in MiB. A REPL whose batch does not
    fit waits, which is no code time. One that is larger than this has its turn alone."""
    pool_memory_mb: int | None = None
    """Memory that the code of all REPLs of a pool may hold at a time, in MiB; where it is used up, the largest ends.
    None: three quarters of the machine's or the container's. Seen some thirty times a second."""
    aliases: bool = True
    """Define the names that other RLMs give to `answer` and `llm_batch` (see `child/aliases.py`)."""
    interrupt_grace: float = 1.0
    """Seconds between SIGINT, the second SIGINT, and SIGKILL."""
    start_timeout: float = 60.0
    """Seconds within which the zygote must be up, and a REPL open."""
    nice: int = 5
    """Added niceness of REPLs."""
    cpus: tuple[int, ...] | None = None
    """Cores that REPLs run on; None: all."""

    def __post_init__(self) -> None:
        if self.level not in (*LEVELS, "best"):
            raise ValueError(f"level={self.level!r}: choose one of {', '.join(LEVELS)} or 'best'")
        if self.require is not None and self.require not in LEVELS:
            raise ValueError(f"require={self.require!r}: choose one of {', '.join(LEVELS)}")
        if self.checkpoint and not self.allow_fork:
            raise ValueError("checkpoint=True needs allow_fork=True")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be greater than 0")
        if self.pool_memory_mb is not None and not self.pool_memory_mb > 0:
            raise ValueError(f"pool_memory_mb={self.pool_memory_mb!r}: it must be greater than 0, or None")
        if not self.tmp_mb >= 0:
            raise ValueError(f"tmp_mb={self.tmp_mb!r}: it must be 0, or a size in MiB")
        if self.tmp_mb and "sealed" in (self.level, self.require):
            raise ValueError(f"tmp_mb={self.tmp_mb!r}: at level sealed there are no files; choose guard or jail")
        if self.max_output_chars < 200:
            raise ValueError(f"max_output_chars={self.max_output_chars!r} must be at least 200")


def empty_answer() -> dict[str, Any]:
    return {"content": "", "ready": False}


@dataclass(frozen=True)
class StepResult:
    """The outcome of one cell. The host measures the times; the REPL reports the rest, and the host bounds it."""

    output: str = ""
    """The printed and echoed text, at most `max_output_chars` characters: head and tail, with the true length."""
    error: str | None = None
    """A short traceback, or what happened to the process; None where the cell raised nothing."""
    timed_out: bool = False
    """The cell was stopped by `timeout` or `wall_timeout`."""
    state_lost: bool = False
    """The process is gone, and with it every variable; the next cell runs in a fresh one with the same context."""
    seconds: float = 0.0
    """Code time: wall time without the waits in `llm_batch`."""
    sub_llm_seconds: float = 0.0
    """Wall time with at least one batch in flight."""
    answer: dict[str, Any] = field(default_factory=empty_answer)
    """{"content": str, "ready": bool} after the cell."""
    truncated_chars: int = 0
    """Characters of output that were left out."""
    answer_truncated_chars: int = 0
    """Characters of `answer["content"]` beyond `max_answer_chars`, which were left out. At least so many: a list or
    dict is not written out further than the limit."""
