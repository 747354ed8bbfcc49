"""The private temporary directory of a REPL (`ReplConfig.tmp_mb`), made by the REPL's process as it enters its sandbox.

At level jail it is a tmpfs of its own, whose size and number of files the kernel bounds. At the others it is a folder
in the pool's, which only this process may look into; there the host counts (`host/scratch_use.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from rlm_env.repl.sandbox import libc

MAX_SCRATCH_NAMES = 1024
"""Files and folders that it may have."""
_SAFE_MOUNT = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC


@dataclass(frozen=True)
class ScratchPlan:
    """Where the temporary directories of a pool's REPLs are, the same for all of them."""

    base: str
    """The folder in which each REPL makes its own; at level jail, where each mounts its own."""
    mounted: bool
    size: int
    """Bytes."""
    reading: tuple[str, ...]
    """Trees that hold all that a REPL may read elsewhere, and neither `base` nor anything above it."""

    @property
    def allowed(self) -> str:
        """The tree that the ruleset of all REPLs has to allow. The kernel looks at what is above a mount, not at the
        folder that it hides."""
        return os.path.dirname(self.base) if self.mounted else self.base


def scratch_plan(spec: dict[str, Any] | None) -> ScratchPlan | None:
    """The plan in a zygote's instructions (`host/scratch.py`)."""
    return None if spec is None else ScratchPlan(**{**spec, "reading": tuple(spec["reading"])})


def make_scratch(plan: ScratchPlan, name: str) -> str:
    """Makes the directory, for this process's user, and returns its path. OSError where that cannot be done.

    Needs CAP_SYS_ADMIN where it is mounted: give the capability up afterwards."""
    if plan.mounted:
        libc.new_mount_namespace()
        options = f"size={plan.size},nr_inodes={MAX_SCRATCH_NAMES},mode=700"
        libc.mount("tmpfs", plan.base, "tmpfs", _SAFE_MOUNT, options)
        return plan.base
    path = f"{plan.base}/{name}"
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise OSError(
            error.errno, f"no temporary directory can be made in {plan.base} ({error.strerror}); set TMPDIR"
        ) from None
    return path
