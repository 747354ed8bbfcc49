"""Opening a pool at one isolation level; a level that this machine cannot give skips the test and says why.

Where it has to work the test fails instead: `scripts/test.sh` names such levels in RLM_ENV_REQUIRED_LEVELS.
"""

import os
from typing import NoReturn

import pytest

from rlm_env.repl import ReplConfig, ReplPool, SandboxError

GUARD_FIRST = ("guard", *(pytest.param(level, marks=pytest.mark.slow) for level in ("sealed", "jail", "bare")))
"""Every level; the others than guard are among the slow tests."""
REQUIRED = "RLM_ENV_REQUIRED_LEVELS"
"""Environment variable: levels that have to start, with blanks between them."""


async def open_pool(level: str, preload: tuple[str, ...] = (), **options) -> ReplPool:
    """A started pool at exactly `level`. Close it yourself."""
    config = ReplConfig(level=level, require=level, allow_unsafe=True, preload=preload, **options)
    try:
        return await ReplPool(config).__aenter__()
    except SandboxError as error:
        does_not_start(level, error.reasons[level])


def does_not_start(level: str, reason: str) -> NoReturn:
    """Ends a test at a level that does not work on this machine."""
    if level in os.environ.get(REQUIRED, "").split():
        pytest.fail(f"isolation level {level} has to work here ({REQUIRED}), and does not: {reason}")
    pytest.skip(f"isolation level {level} does not work here: {reason}")
