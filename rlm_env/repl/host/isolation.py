"""Which walls stand: the tiers, choosing one by trying, and the report that goes into every rollout.

| tier   | needs                       | stands on                                                           |
|--------|-----------------------------|---------------------------------------------------------------------|
| jail   | bubblewrap, user namespaces | guard, where the host's files, pids and network do not exist at all |
| guard  | Landlock, seccomp           | limits, Landlock (files), seccomp (calls), a private uid where root |
| sealed | seccomp                     | limits, seccomp without any call that takes a path                  |
| bare   | nothing                     | limits                                                              |

Covered: the host's side (order, refusal, report). Not covered: the rules (`landlock.py`, `seccomp.py`), entering
them (`walls.py`), the attacks (`probe.py`).
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import sysconfig
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlm_env.repl.config import TIERS, ReplConfig, SandboxError

# Loading an extension module needs these; none of them holds a secret.
_SYSTEM_READ = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
)
_LIBRARY_DIRS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_WRITE = ("/dev/null",)
_PACKAGE_DIRS = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Layer:
    """One wall: whether it stands here, and what it is or why it does not."""

    name: str
    stands: bool
    detail: str


@dataclass(frozen=True)
class SandboxReport:
    """The active tier and how it was chosen."""

    tier: str
    layers: tuple[Layer, ...] = ()
    attacks: dict[str, str] = field(default_factory=dict)
    """The self-test: attack -> the error it met, or "leaked"."""
    not_chosen: dict[str, str] = field(default_factory=dict)
    """Every other tier -> why it is not the active one."""
    packages: dict[str, str] = field(default_factory=dict)
    """Preloaded package -> version, or why it is missing."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON would give it back."""
        return {**asdict(self), "layers": [asdict(layer) for layer in self.layers]}

    def __str__(self) -> str:
        standing = ", ".join(layer.name for layer in self.layers if layer.stands)
        return f"tier {self.tier} ({standing or 'no walls'})"


def candidates(config: ReplConfig) -> tuple[list[str], dict[str, str]]:
    """(tiers to try, best first; tiers that are not tried and why)"""
    top = TIERS[-1] if config.tier == "best" else config.tier
    lowest = config.require or TIERS[0]
    if TIERS.index(lowest) > TIERS.index(top):
        raise SandboxError(f"tier={config.tier!r} is below require={lowest!r}: raise tier or lower require")
    tried, skipped = [], {}
    for name in reversed(TIERS):
        if TIERS.index(name) > TIERS.index(top):
            skipped[name] = f"above the configured tier {top!r}"
        elif TIERS.index(name) < TIERS.index(lowest):
            skipped[name] = f"below the required tier {lowest!r}"
        elif name == "bare" and not config.allow_unsafe:
            skipped[name] = "walls in nothing; needs allow_unsafe=True"
        else:
            tried.append(name)
    return tried, skipped


def refuse(reasons: dict[str, str]) -> SandboxError:
    """The error for a machine on which no permitted tier stands."""
    told = "; ".join(f"{tier}: {why}" for tier, why in reasons.items())
    return SandboxError(
        f"no permitted sandbox tier stands here ({told}). Install bubblewrap or use a kernel with Landlock, run the "
        "pool in a container or microVM, or set ReplConfig(allow_unsafe=True) for code that you trust."
    )


def leaks(tier: str, attacks: dict[str, str]) -> list[str]:
    """The attacks that succeeded although the tier is there to stop them."""
    return [] if tier == "bare" else [name for name, outcome in attacks.items() if outcome == "leaked"]


def python_path() -> list[str]:
    """What a REPL imports from: the standard library and the site-packages that this interpreter uses.

    The current directory, PYTHONPATH and editable installs are not in it: the project's own tree stays outside.
    """
    paths = sysconfig.get_paths()
    standard = Path(paths["stdlib"])
    entries = [str(standard), str(standard / "lib-dynload")]
    zipped = standard.parent / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    if zipped.exists():
        entries.insert(0, str(zipped))
    for entry in (*sys.path, paths["purelib"], paths["platlib"]):
        name = Path(entry).name
        if name in _PACKAGE_DIRS and Path(entry).is_dir() and entry not in entries:
            entries.append(entry)
    return entries


def _own_top_levels() -> set[str]:
    """Top-level names in site-packages that belong to this project or to an environment package of it: they may
    hold gold answers and prompts."""
    own = {"rlm_env", "rewards"}
    distributions = {"rlm-env"}
    for entry in importlib.metadata.entry_points(group="rlm_env.environments"):
        own.add(entry.value.partition(":")[0].partition(".")[0])
        if entry.dist is not None:
            distributions.add(entry.dist.name)
    prefixes = tuple(name.lower().replace("-", "_") for name in distributions)
    return own | {f"{prefix}-" for prefix in prefixes}


def readable_paths(python: list[str]) -> tuple[list[str], list[str]]:
    """(files and trees that a REPL may read, directories that it may list) for this `sys.path`."""
    own = _own_top_levels()
    prefixes = tuple(name for name in own if name.endswith("-"))
    read, listed = [], []
    for entry in python:
        path = Path(entry)
        if not path.is_dir():
            read.append(entry)
            continue
        listed.append(entry)
        for child in path.iterdir():
            # site-packages may lie within the standard library's directory
            foreign = child.name.partition(".")[0] not in own and not child.name.lower().startswith(prefixes)
            if foreign and child.suffix != ".pth" and child.name not in _PACKAGE_DIRS:
                read.append(str(child))
    read += map(str, (Path(sys.base_prefix) / "lib").glob("libpython*"))
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for directory in _LIBRARY_DIRS:
        if directory.endswith("64"):
            read.append(directory)
        elif multiarch:
            read.append(f"{directory}/{multiarch}")
    return [*read, *_SYSTEM_READ], listed


def zygote_spec(config: ReplConfig, tier: str) -> dict[str, Any]:
    """The zygote's instructions, as JSON-ready data. Holds nothing that a REPL must not see."""
    python = python_path()
    read, listed = readable_paths(python)
    return {
        "tier": tier,
        "sys_path": python,
        "preload": list(config.preload),
        "read": read,
        "list": listed,
        "write": list(_WRITE),
        "memory_bytes": config.memory_mb * 2**20,
        "file_bytes": config.file_mb * 2**20,
        "max_output": config.max_output_chars,
        "max_answer": config.max_answer_chars,
        "max_items": config.max_batch_items,
        "max_bytes": config.max_batch_bytes,
        "allow_fork": config.allow_fork,
        "nice": config.nice,
        "cpus": list(config.cpus or ()),
        "uids": _uid_ranges(),
    }


def _uid_ranges() -> list[list[int]]:
    """(first, count) of user ids for REPLs, where this process is root: far from anybody's, and of this process
    alone; else (in a user namespace that maps only the customary 65,536) below `nobody`."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    return [[10**9 + os.getpid() % 10**6 * 1000, 1000], [64_000, 1000]]


def layers(tier: str, details: dict[str, Any]) -> tuple[Layer, ...]:
    """The walls of `tier`, with what the zygote told of them."""
    walled = tier != "bare"
    landlock = tier in ("guard", "jail")
    # A preloaded package that starts threads may hold a lock at the moment of a fork.
    busy = "" if details["threads"] == 1 else f"; it has {details['threads']} threads, so a REPL may hang at its start"
    found = [
        Layer("own process", True, f"forked from a zygote that was started with an empty environment{busy}"),
        Layer("limits", True, "memory, file size, open files, no core dumps; dies with its host"),
        Layer(
            "landlock",
            landlock,
            f"ABI {details['landlock_abi']}: Python's own trees, read-only" if landlock else f"not used in {tier}",
        ),
        Layer(
            "seccomp",
            walled,
            f"{details['filter_length']} instructions, allow-list" if walled else "not used in bare",
        ),
        Layer("identity", details["identity_stands"], details["identity"]),
        Layer(
            "namespaces",
            tier == "jail",
            "no host files, pids or network (bubblewrap)" if tier == "jail" else f"not used in {tier}",
        ),
    ]
    return tuple(found)
