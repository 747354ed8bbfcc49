"""The isolation levels: choosing one by trying, instructing the zygote, and the report in every rollout.

| level  | needs                       | consists of                                                         |
|--------|-----------------------------|---------------------------------------------------------------------|
| jail   | bubblewrap, user namespaces | guard, where the host's files, pids and network do not exist at all |
| guard  | Landlock, seccomp           | limits, Landlock (files), seccomp (calls), a private uid where root |
| sealed | seccomp                     | limits, seccomp without any call that takes a path                  |
| bare   | nothing                     | limits                                                              |

The rules are in `sandbox/landlock.py` and `sandbox/seccomp.py`, the self-test's attacks in `sandbox/selftest.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlm_env.repl.config import LEVELS, ReplConfig, SandboxError
from rlm_env.repl.host.readable import paths_outside, python_path, readable_paths
from rlm_env.repl.host.scratch import ScratchBase, sees_open_files
from rlm_env.repl.sandbox.enter import MAX_THREADS
from rlm_env.repl.sandbox.scratch import MAX_SCRATCH_NAMES

_WRITE = ("/dev/null",)
_OPEN_FILES_UNSEEN = "this process lacks CAP_SYS_PTRACE, and could not see what a REPL of another user keeps open"


@dataclass(frozen=True)
class Layer:
    """One layer of the sandbox."""

    name: str
    active: bool
    detail: str
    """Its rules, or why it is not active."""


@dataclass(frozen=True)
class SandboxReport:
    """The isolation level in use and how it was chosen."""

    level: str
    layers: tuple[Layer, ...] = ()
    attacks: dict[str, str] = field(default_factory=dict)
    """The self-test: attack -> the error it got, or "leaked"."""
    not_chosen: dict[str, str] = field(default_factory=dict)
    """Every other level -> why it is not the one in use."""
    packages: dict[str, str] = field(default_factory=dict)
    """Preloaded package -> version, or why it is missing."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with lists for tuples. Written out, since every rollout records it and `asdict` is slow."""
        layers = [{"name": layer.name, "active": layer.active, "detail": layer.detail} for layer in self.layers]
        facts = {name: dict(getattr(self, name)) for name in ("attacks", "not_chosen", "packages")}
        return {"level": self.level, "layers": layers, **facts}

    def __str__(self) -> str:
        active = ", ".join(layer.name for layer in self.layers if layer.active)
        return f"level {self.level} ({active or 'no layer'})"


def candidate_levels(config: ReplConfig) -> tuple[list[str], dict[str, str]]:
    """(levels to try, best first; the other levels and why they are not tried)"""
    top = LEVELS[-1] if config.level == "best" else config.level
    lowest = config.require or LEVELS[0]
    if LEVELS.index(lowest) > LEVELS.index(top):
        raise SandboxError(f"level={config.level!r} is below require={lowest!r}: raise level or lower require")
    tried, skipped = [], {}
    for name in reversed(LEVELS):
        if LEVELS.index(name) > LEVELS.index(top):
            skipped[name] = f"above the configured level {top!r}"
        elif LEVELS.index(name) < LEVELS.index(lowest):
            skipped[name] = f"below the required level {lowest!r}"
        elif name == "bare" and not config.allow_unsafe:
            skipped[name] = "confines nothing; needs allow_unsafe=True"
        elif name == "sealed" and config.tmp_mb:
            skipped[name] = "has no files, and so no temporary directory (tmp_mb)"
        else:
            tried.append(name)
    return tried, skipped


def refusal(reasons: dict[str, str]) -> SandboxError:
    """The error for a machine on which no permitted level works."""
    listed = "; ".join(f"{level}: {why}" for level, why in reasons.items())
    return SandboxError(
        f"no permitted isolation level works here ({listed}). Install bubblewrap or use a kernel with Landlock, run "
        "the pool in a container or microVM, or set ReplConfig(allow_unsafe=True) for code that you trust.",
        reasons,
    )


def leaks(level: str, attacks: dict[str, str]) -> list[str]:
    """The attacks that succeeded although the level should stop them."""
    return [] if level == "bare" else [name for name, outcome in attacks.items() if outcome == "leaked"]


def zygote_spec(config: ReplConfig, level: str, scratch: ScratchBase | None = None) -> dict[str, Any]:
    """The zygote's instructions, as JSON-ready data. Holds nothing that a REPL must not see. `scratch`: where
    temporary directories are, if there are any."""
    python = python_path()
    read = readable_paths(python)
    trees = [*python, *paths_outside(python, read), *_WRITE]
    counted = scratch is not None and level != "jail"
    return {
        "level": level,
        "sys_path": python,
        "preload": list(config.preload),
        "read": read,
        "write": list(_WRITE),
        "memory_bytes": config.memory_mb * 2**20,
        "file_bytes": config.file_mb * 2**20,
        "scratch": None if scratch is None else scratch.spec(config.tmp_mb * 2**20, trees),
        "shared_uid": _OPEN_FILES_UNSEEN if counted and not sees_open_files() else None,
        "max_output": config.max_output_chars,
        "max_answer": config.max_answer_chars,
        "max_items": config.max_batch_items,
        "max_bytes": config.max_batch_bytes,
        "allow_fork": config.allow_fork,
        "aliases": config.aliases,
        "nice": config.nice,
        "cpus": list(config.cpus or ()),
    }


def describe_layers(config: ReplConfig, level: str, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """The layers of `level`, with what the zygote found out (`sandbox/prepare.py`)."""
    confined, landlock, jail = level != "bare", level in ("guard", "jail"), level == "jail"
    unused = f"not used at level {level}"
    # A preloaded package that starts threads may hold a lock at the moment of a fork.
    busy = "" if facts["threads"] == 1 else f"; it has {facts['threads']} threads, so a REPL may hang at its start"
    rules = f"ABI {facts['landlock_abi']}: Python's own trees, read-only"
    if config.tmp_mb:
        rules += ", and a temporary directory"
    watched = f"the host counts: at most {MAX_THREADS} threads per REPL, and pool_memory_mb for all"
    if config.tmp_mb and not jail:
        watched += f"; {config.tmp_mb} MiB and {MAX_SCRATCH_NAMES:,} names in a temporary directory"
    return (
        Layer("own process", True, f"forked from a zygote that was started with an empty environment{busy}"),
        Layer("limits", True, "memory, file size, open files, no core dumps; dies with its host"),
        Layer("watchdog", True, watched),
        Layer("landlock", landlock, rules if landlock else unused),
        Layer("seccomp", confined, f"{facts['filter_length']} instructions, allow-list" if confined else unused),
        Layer("identity", facts["identity_active"], facts["identity"]),
        Layer("namespaces", jail, "no host files, pids or network (bubblewrap)" if jail else unused),
    )
