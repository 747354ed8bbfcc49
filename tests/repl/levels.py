"""Opening a pool at one isolation level; a level that this machine cannot give skips the test and says why."""

import pytest

from rlm_env.repl import ReplConfig, ReplPool, SandboxError

GUARD_FIRST = ("guard", *(pytest.param(level, marks=pytest.mark.slow) for level in ("sealed", "jail", "bare")))
"""Every level; the others than guard are among the slow tests."""


async def open_pool(level: str, **options) -> ReplPool:
    """A started pool at exactly `level`, without preloaded packages. Close it yourself."""
    config = ReplConfig(level=level, require=level, allow_unsafe=True, preload=(), **options)
    try:
        return await ReplPool(config).__aenter__()
    except SandboxError as error:
        pytest.skip(f"isolation level {level} does not work here: {error.reasons[level]}")
