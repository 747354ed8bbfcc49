"""The gate before an engine: what passes, what waits, what is cut off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlm_env.llm.base import EngineUnavailable, LLMError, Request
from rlm_env.messages import Completion
from rlm_env.train.sync.request_gate import GatedLLM, ReplyDropped, RequestCut, RequestGate
from tests.stubs import StubLLM


class Held:
    """Requests that end when they are told to; `log` says what began and ended in which order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.release = asyncio.Event()

    async def request(self, name: str) -> str:
        self.log.append(f"{name} begins")
        await self.release.wait()
        self.log.append(f"{name} ends")
        return name


async def inside(gate: RequestGate) -> None:
    """Returns when a request is in flight."""
    for _ in range(1000):
        if gate.inside:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("no request came through the gate")


async def test_an_update_waits_for_requests_in_flight_and_new_ones_wait_for_it() -> None:
    gate, held = RequestGate(), Held()
    first = asyncio.create_task(gate.run(lambda: held.request("first")))
    await inside(gate)

    async def update() -> None:
        async with gate.closed(5):
            assert gate.inside == 0
            held.log.append("update")
            await asyncio.sleep(0.01)  # the second one would have begun by now
            held.log.append("updated")

    updating = asyncio.create_task(update())
    await asyncio.sleep(0)
    second = asyncio.create_task(gate.run(lambda: held.request("second")))
    await asyncio.sleep(0.01)
    assert held.log == ["first begins"]
    held.release.set()
    assert await asyncio.gather(first, second) == ["first", "second"]
    await updating
    assert held.log == ["first begins", "first ends", "update", "updated", "second begins", "second ends"]
    assert gate.seconds_closed >= 0.01
    assert gate.cut == 0


async def test_what_does_not_end_is_cut_off_and_nothing_else() -> None:
    gate, held = RequestGate(), Held()

    async def quick() -> str:
        await asyncio.sleep(0.02)
        return "quick"

    slow = asyncio.create_task(gate.run(lambda: held.request("slow")))
    fast = asyncio.create_task(gate.run(quick))
    await inside(gate)
    async with gate.closed(0.1) as drained:
        assert gate.inside == 0
        assert drained >= 0.1
    assert await fast == "quick"
    with pytest.raises(RequestCut, match="new weights"):
        await slow
    assert gate.cut == 1
    assert await gate.run(quick) == "quick"  # and the gate is open again


async def test_requests_of_an_engine_that_hangs_are_abandoned_as_those_of_a_dead_one() -> None:
    gate, held = RequestGate(), Held()
    asked = [asyncio.create_task(gate.run(lambda: held.request("asked"))) for _ in range(2)]
    await inside(gate)
    gate.abandon()
    for one in asked:
        with pytest.raises(EngineUnavailable):
            await one
    assert (gate.inside, gate.cut) == (0, 0)
    held.release.set()
    assert await gate.run(lambda: held.request("later")) == "later"


async def test_a_caller_that_is_cancelled_is_cancelled_even_while_its_request_is_cut() -> None:
    gate, held = RequestGate(), Held()
    slow = asyncio.create_task(gate.run(lambda: held.request("slow")))
    await inside(gate)

    async def update() -> None:
        async with gate.closed(0.0):
            pass

    updating = asyncio.create_task(update())
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    await updating
    assert gate.inside == 0


async def test_a_caller_that_waits_at_the_gate_can_be_cancelled() -> None:
    gate, held = RequestGate(), Held()
    async with gate.closed(1):
        waiting = asyncio.create_task(gate.run(lambda: held.request("never")))
        await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert held.log == []


async def test_updates_come_one_after_the_other_and_a_failed_one_opens_the_gate() -> None:
    gate = RequestGate()
    updating: list[int] = []

    async def update(number: int) -> None:
        async with gate.closed(1):
            updating.append(number)
            assert len(updating) == 1
            await asyncio.sleep(0.005)
            updating.remove(number)

    await asyncio.gather(*(update(number) for number in range(5)))
    with pytest.raises(ZeroDivisionError):
        async with gate.closed(1):
            raise ZeroDivisionError
    assert await gate.run(lambda: asyncio.sleep(0, "open")) == "open"


async def test_llm_behind_a_gate() -> None:
    weights = ["old"]
    stub = StubLLM(lambda messages: weights[0] + messages[-1]["content"], delay=0.02)
    stub.context_window = 77
    gate = RequestGate()
    llm = GatedLLM(gate, lambda: stub, stub)
    assert (llm.name, llm.context_window, llm.supports_tools, llm.concurrency) == ("stub", 77, False, 64)
    batch = asyncio.create_task(llm.complete_many([Request([{"role": "user", "content": " a"}])] * 2))
    await inside(gate)
    async with gate.closed(1):
        weights[0] = "new"
        later = asyncio.create_task(llm.complete([{"role": "user", "content": " b"}]))
        await asyncio.sleep(0.05)
        assert not later.done()
    assert [answer.text for answer in await batch] == ["old a", "old a"]  # a batch passes as a whole
    assert (await later).text == "new b"


async def test_a_batch_that_is_cut_off_fails_as_answers_not_as_a_batch() -> None:
    stub = StubLLM(lambda _: "never", delay=60)
    gate = RequestGate()
    llm = GatedLLM(gate, lambda: stub, stub)
    batch = asyncio.create_task(llm.complete_many([Request([{"role": "user", "content": "a"}])] * 3))
    await inside(gate)
    async with gate.closed(0.0):
        pass
    answers = await batch
    assert len(answers) == 3
    assert all(isinstance(answer, RequestCut) and not isinstance(answer, EngineUnavailable) for answer in answers)


async def test_without_an_engine_requests_fail_at_once() -> None:
    def current() -> Any:
        raise EngineUnavailable("being restarted")

    llm = GatedLLM(RequestGate(), current, StubLLM(lambda _: Completion("")))
    with pytest.raises(EngineUnavailable, match="restarted"):
        await llm.complete([{"role": "user", "content": "a"}])
    (answer,) = await llm.complete_many([Request([{"role": "user", "content": "a"}])])
    assert isinstance(answer, LLMError)


async def test_a_reply_from_the_address_of_an_engine_that_was_replaced_is_none() -> None:
    """Its retries may have reached another engine, with other weights than the record says."""
    old, new = (StubLLM(lambda _, name=name: name, delay=0.02) for name in ("old", "new"))
    gate, current = RequestGate(), [old]
    llm = GatedLLM(gate, lambda: current[0], old)
    question = [{"role": "user", "content": "a"}]
    asked = asyncio.create_task(llm.complete(question))
    batch = asyncio.create_task(llm.complete_many([Request(question)] * 2))
    await inside(gate)
    current[0] = new
    with pytest.raises(EngineUnavailable, match="started again"):
        await asked
    assert all(isinstance(answer, EngineUnavailable) for answer in await batch)
    assert (await llm.complete(question)).text == "new"


async def test_replies_wait_while_weights_are_on_trial() -> None:
    gate, held = RequestGate(), Held()
    with gate.on_trial():
        asked = asyncio.create_task(gate.run(lambda: held.request("first")))
        await inside(gate)
        held.release.set()
        await asyncio.sleep(0.005)
        assert held.log == ["first begins", "first ends"]
        assert not asked.done()
    assert await asked == "first"
    assert gate.dropped == 0


async def test_replies_of_weights_that_fail_are_dropped_until_others_pass() -> None:
    gate, held = RequestGate(), Held()
    late = asyncio.create_task(gate.run(lambda: held.request("late")))
    quick = asyncio.create_task(gate.run(lambda: asyncio.sleep(0.001)))

    async def fail() -> None:
        with gate.on_trial():
            await asyncio.sleep(0.005)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    held.release.set()
    for asked in (late, quick, asyncio.create_task(gate.run(lambda: held.request("new")))):
        with pytest.raises(ReplyDropped):
            await asked
    assert gate.dropped == 3
    assert "new begins" not in held.log
    with gate.on_trial():
        pass
    assert await gate.run(lambda: asyncio.sleep(0, "trusted")) == "trusted"


async def test_shut_lets_nothing_in_and_leaves_what_is_there() -> None:
    gate, held = RequestGate(), Held()
    there = asyncio.create_task(gate.run(lambda: held.request("there")))
    await inside(gate)
    async with gate.shut():
        waiting = asyncio.create_task(gate.run(lambda: held.request("waiting")))
        held.release.set()
        assert await there == "there"
        assert not waiting.done()
    assert await waiting == "waiting"
