"""Preparing the sandbox once, in the zygote, so that a child enters it within a fraction of a millisecond.

The entering is in `enter.py`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rlm_env.repl.sandbox import enter, identity, landlock
from rlm_env.repl.sandbox.enter import PreparedSandbox
from rlm_env.repl.sandbox.scratch import scratch_plan
from rlm_env.repl.sandbox.seccomp import compile_filter
from rlm_env.repl.sandbox.syscalls import machine


def prepare_sandbox(spec: dict[str, Any]) -> PreparedSandbox:
    """The ruleset and the filter of the level, built once. `spec`: see `host/isolation.py`.

    Raises OSError where the machine cannot do it.
    """
    level, arch, root = spec["level"], machine(), os.geteuid() == 0
    plan = scratch_plan(spec["scratch"])
    ruleset = None
    if level in ("guard", "jail"):
        ruleset = landlock.build_ruleset(spec["read"], spec["write"], plan.allowed if plan else None)
    program = None
    if level != "bare":
        if arch is None:
            raise OSError(f"no seccomp table for {os.uname().machine}")
        program = compile_filter(arch, paths=level != "sealed", allow_fork=spec["allow_fork"], scratch=plan is not None)
    uids, shared = None, spec["shared_uid"]
    for scheme in identity.uid_schemes() if level != "bare" and shared is None else []:
        why_not = identity.others_can_read(spec["sys_path"], scheme.first)
        if why_not is None:
            uids = scheme
            break
        shared = shared or why_not
    if root and program is not None:
        mounts = (enter.CAP_SYS_ADMIN,) if plan and plan.mounted else ()
        enter.drop_capabilities(keep=mounts + (enter.TO_CHANGE_UID if uids else ()))
    return PreparedSandbox(
        level=level,
        ruleset=ruleset,
        filter=program,
        limits=enter.resource_limits(spec["file_bytes"], private=uids is not None),
        memory_bytes=spec["memory_bytes"],
        uids=uids,
        shared_uid=shared,
        write=tuple(spec["write"]),
        scratch=plan,
    )


def sandbox_facts(sandbox: PreparedSandbox) -> dict[str, Any]:
    """Facts about the sandbox that only the zygote can find out, for the host's report."""
    root = os.geteuid() == 0
    if sandbox.uids is not None:
        who = "a private uid per REPL, no capabilities"
    elif root and sandbox.filter is not None:
        who = f"root without capabilities: {sandbox.shared_uid}"
    elif root:
        who = "root"
    else:
        who = "the host's own uid"
    return {
        "pid": os.getpid(),
        "threads": _count_threads(),
        "landlock_abi": landlock.landlock_abi(),
        "filter_length": len(sandbox.filter.program) // 8 if sandbox.filter else 0,
        "identity": who,
        "identity_active": not root or sandbox.filter is not None,
    }


def _count_threads() -> int:
    """Threads of this process, including those of C libraries where /proc is readable."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return len(sys._current_frames())
