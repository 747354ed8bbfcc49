"""Several engines as one: who is asked, conversations that stay where their prefix is cached, engines that die."""

from __future__ import annotations

import asyncio

import pytest

from rlm_env.llm.balance import BalancedLLM, Seat
from rlm_env.llm.base import LLM, ContextOverflow, EngineUnavailable, LLMError, Request, ToolsRefused
from rlm_env.llm.http import EndpointError
from rlm_env.messages import Completion


class Answering(LLM):
    """Answers with its name once it may; `errors` come first."""

    supports_tools = True

    def __init__(self, name: str, window: int | None = 100) -> None:
        self.name, self.context_window, self.concurrency = name, window, 8
        self.errors: list[LLMError] = []
        self.asked: list[str] = []
        self.batches: list[int] = []
        self.may = asyncio.Event()
        self.may.set()

    async def complete(self, messages, tools=None, sampling=None):
        self.asked.append(messages[-1]["content"])
        await self.may.wait()
        if self.errors:
            error = self.errors.pop(0)
            self.supports_tools &= not isinstance(error, ToolsRefused)
            raise error
        return Completion(self.name)

    async def complete_many(self, requests):
        self.batches.append(len(requests))
        return await super().complete_many(requests)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


class Several:
    """Engines a, b, ... behind one LLM, and what was told of their deaths."""

    def __init__(self, count: int) -> None:
        self.engines = [Answering(name) for name in "abcd"[:count]]
        self.seats = [Seat(engine.name, engine) for engine in self.engines]
        self.lost: list[tuple[str, str]] = []
        self.llm = BalancedLLM(self.seats, lambda seat, error: self.lost.append((seat.name, str(error))))

    async def ask(self, *texts: str) -> str:
        return (await self.llm.complete([user(text) for text in texts])).text


async def test_requests_go_to_the_engine_with_the_fewest_in_flight():
    several = Several(3)
    for engine in several.engines:
        engine.may.clear()
    asked = [asyncio.create_task(several.ask(str(n))) for n in range(7)]
    await asyncio.sleep(0)
    assert [seat.load for seat in several.seats] == [3, 2, 2]
    for engine in several.engines:
        engine.may.set()
    answers = await asyncio.gather(*asked)
    assert sorted(answers) == ["a"] * 3 + ["b"] * 2 + ["c"] * 2
    assert [seat.load for seat in several.seats] == [0, 0, 0]


async def test_a_batch_is_one_request_to_each_engine_and_its_answers_are_in_order():
    several = Several(2)
    several.seats[0].load = 4  # of another role
    answers = await several.llm.complete_many([Request([user(str(n))]) for n in range(10)])
    assert [len(engine.batches) for engine in several.engines] == [1, 1]
    assert [engine.batches[0] for engine in several.engines] == [3, 7]
    by_question = dict(zip(map(str, range(10)), (answer.text for answer in answers), strict=True))
    assert {name for text, name in by_question.items() if text in several.engines[0].asked} == {"a"}
    assert [seat.load for seat in several.seats] == [4, 0]


async def test_a_conversation_stays_where_its_prefix_is_cached_unless_that_engine_is_busier():
    several = Several(2)
    several.seats[0].load = 1
    assert await several.ask("first") == "b"
    several.seats[0].load, several.seats[1].load = 0, 4
    assert await several.ask("first", "reply", "second") == "b"
    assert await several.ask("first", "reply", "second", "reply", "third") == "b"
    assert await several.ask("another") == "a"
    several.seats[1].load = 5
    assert await several.ask("first", "reply", "second", "reply", "third", "reply", "fourth") == "a"
    several.seats[1].load = 0
    several.seats[0].load = 40
    assert await several.ask("another", "reply", "second") == "b"


async def test_what_a_dead_engine_leaves_unanswered_is_asked_of_another():
    several = Several(2)
    several.engines[0].errors = [EngineUnavailable("gone")] * 9
    assert await several.ask("one") == "b"
    assert several.lost == [("a", "gone")]
    assert not several.seats[0].up
    several.seats[0].up = True
    answers = await several.llm.complete_many([Request([user(str(n))]) for n in range(6)])
    assert [answer.text for answer in answers] == ["b"] * 6
    assert several.lost == [("a", "gone")] * 2
    assert [seat.load for seat in several.seats] == [0, 0]
    assert await several.ask("two") == "b"  # it is not asked any more
    several.seats[0].up, several.engines[0].errors = True, []
    assert await several.ask("three") == "a"


async def test_with_no_engine_left_requests_say_so_at_once():
    several = Several(2)
    for engine in several.engines:
        engine.errors = [EngineUnavailable(f"{engine.name} gone")] * 9
    with pytest.raises(EngineUnavailable, match="a gone; b gone"):
        await several.ask("one")
    answers = await several.llm.complete_many([Request([user("two")]), Request([user("three")])])
    assert all(isinstance(answer, EngineUnavailable) for answer in answers)
    assert [name for name, _ in several.lost] == ["a", "b"]


@pytest.mark.parametrize(("well", "told"), [(True, []), (False, [("a", "broken")])])
async def test_an_error_of_the_engine_itself_is_a_death_only_if_it_is_not_well(well, told):
    several = Several(2)

    async def healthy() -> bool:
        return well

    several.seats[0].healthy = healthy
    several.engines[0].errors = [EndpointError("broken", 500, "broken")]
    (answer,) = await several.llm.complete_many([Request([user("one")])])
    assert several.lost == told
    assert isinstance(answer, EndpointError) if well else answer.text == "b"


@pytest.mark.parametrize("error", [ContextOverflow(120, 100), EndpointError("bad request", 400, "bad request")])
async def test_a_request_that_is_refused_is_not_asked_again(error):
    several = Several(2)
    several.engines[0].errors = [error]
    with pytest.raises(type(error)):
        await several.ask("one")
    assert (several.lost, several.engines[1].asked) == ([], [])


async def test_what_one_engine_lacks_all_lack():
    several = Several(2)
    assert (several.llm.context_window, several.llm.concurrency) == (100, 16)
    assert several.llm.supports_tools
    several.engines[0].errors = [ToolsRefused("no tools")]
    with pytest.raises(ToolsRefused):
        await several.ask("one")
    assert not several.llm.supports_tools
    seats = [Seat("a", Answering("a", 80)), Seat("b", Answering("b", 60))]
    assert BalancedLLM(seats, lambda *_: None).context_window == 60
    assert BalancedLLM([*seats, Seat("c", Answering("c", None))], lambda *_: None).context_window is None


async def test_a_cancelled_request_is_not_in_flight():
    several = Several(1)
    several.engines[0].may.clear()
    asked = asyncio.create_task(several.ask("one"))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert several.seats[0].load == 0
