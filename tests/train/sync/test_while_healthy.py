"""An engine that hangs is not waited for; one that is only busy is."""

from __future__ import annotations

import asyncio

import pytest

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.llm.http import NoReply
from rlm_env.train.sync.while_healthy import while_healthy


class Engine:
    """Says whether it is well, and counts how often it was asked."""

    def __init__(self, well: bool) -> None:
        self.well, self.asked = well, 0
        self.done = asyncio.Event()
        self.cancelled = False

    async def is_healthy(self, within: float) -> bool:
        self.asked += 1
        if self.well and self.asked == 3:
            self.done.set()
        return self.well

    async def answer(self) -> str:
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "answer"


async def test_a_busy_engine_is_waited_for() -> None:
    engine = Engine(well=True)
    assert await while_healthy(engine.answer(), engine.is_healthy, 0.001) == "answer"
    assert engine.asked >= 3


async def test_an_engine_that_hangs_is_given_up() -> None:
    engine = Engine(well=False)
    with pytest.raises(EngineUnavailable, match="hangs"):
        await while_healthy(engine.answer(), engine.is_healthy, 0.001)
    assert (engine.asked, engine.cancelled) == (1, True)


@pytest.mark.parametrize(("well", "raised"), [(True, NoReply), (False, EngineUnavailable)])
async def test_after_a_time_out_the_engine_is_asked(well: bool, raised: type[LLMError]) -> None:
    async def time_out() -> None:
        raise NoReply("no reply to /pause within 600 s")

    engine = Engine(well)
    with pytest.raises(raised, match="no reply to /pause within 600 s"):
        await while_healthy(time_out(), engine.is_healthy, 60)
    assert engine.asked == 1


async def test_a_caller_that_is_cancelled_leaves_no_request_behind() -> None:
    engine = Engine(well=True)
    caller = asyncio.create_task(while_healthy(engine.answer(), engine.is_healthy, 60))
    await asyncio.sleep(0.001)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert engine.cancelled
