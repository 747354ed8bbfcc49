"""One pool for the tests of a module, a REPL for each. Such tests share an event loop, that of their module."""

import gc
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplConfig, ReplPool, SubError


@pytest.fixture(autouse=True)
def nothing_old_is_collected() -> None:
    """A garbage collection looks at what the tests before have left, which takes half a second once they have imported
    torch. It would be counted as time of the host's loop or parser."""
    gc.collect()
    gc.freeze()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[ReplPool]:
    async with ReplPool(ReplConfig(preload=(), interrupt_grace=0.3)) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def repl(pool: ReplPool) -> AsyncIterator[Repl]:
    async with pool.open(context="some text", llm_batch=echo) as opened:
        yield opened


async def echo(prompts: list) -> list:
    """Answers with the prompt in brackets; prompts that begin with "fail" have no answer."""
    texts = [p if isinstance(p, str) else p.get("prompt") or p["messages"][-1]["content"] for p in prompts]
    return [SubError("told to fail") if text.startswith("fail") else f"<{text}>" for text in texts]


def str_of(number: int) -> str:
    """All digits, however many."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return str(number)
    finally:
        sys.set_int_max_str_digits(limit)
