"""Waits for an answer of a vLLM as long as it says that it is well, so that one that hangs is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rlm_env.llm.base import EngineUnavailable
from rlm_env.llm.http import NoReply

Result = TypeVar("Result")


async def while_healthy(
    asked: Awaitable[Result], is_healthy: Callable[[float], Awaitable[bool]], seconds: float
) -> Result:
    """The result of `asked`. After every `seconds` without it, and after a time-out, the engine is asked whether it is
    healthy, which one that is only busy says at once. Raises EngineUnavailable where it does not within `seconds`."""
    answer = asyncio.ensure_future(asked)
    try:
        while not (await asyncio.wait([answer], timeout=seconds))[0]:
            if not await is_healthy(seconds) and not answer.done():
                raise EngineUnavailable(f"it hangs: no answer, nor to /health within {seconds:g} s")
        return await answer
    except NoReply as error:
        if await is_healthy(seconds):
            raise
        raise EngineUnavailable(f"{error}, nor to /health within {seconds:g} s") from None
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
