"""Several engines as one: who is asked, conversations that stay where their prefix is cached, engines that die."""

from __future__ import annotations

import asyncio

import pytest

from rlm_env.llm.balance import BalancedLLM
from rlm_env.llm.base import LLM, ContextOverflow, EngineUnavailable, LLMError, Request, ToolsRefused
from rlm_env.llm.http import EndpointError, NoReply
from rlm_env.llm.seat import Seat
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
        self.rests: list[tuple[str, str]] = []
        self.llm = BalancedLLM(
            self.seats,
            lambda seat, error: self.lost.append((seat.name, str(error))),
            lambda seat, error: self.rests.append((seat.name, str(error))),
        )

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


@pytest.mark.parametrize(("well", "told"), [(True, []), (False, [("a", "no reply within 1800 s")])])
async def test_a_time_out_is_a_death_only_of_an_engine_that_is_not_well(well, told):
    several = Several(2)

    async def healthy() -> bool:
        return well

    several.seats[0].healthy = healthy
    several.engines[0].errors = [NoReply("no reply within 1800 s")] * 2
    answers = await several.llm.complete_many(
        [Request([user("one")]), Request([user("two")]), Request([user("three")])]
    )
    assert (several.lost, several.rests) == (told, [])
    assert [isinstance(answer, NoReply) for answer in answers] == [well, False, well]


PASSING = [
    EndpointError("bad gateway", 502, "bad gateway"),
    EndpointError("too many requests", 429, "too many requests"),
    NoReply("no reply within 60 s"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
async def test_what_an_endpoint_cannot_answer_for_now_is_asked_of_another_and_it_rests(error, monkeypatch):
    monkeypatch.setattr("rlm_env.llm.seat.FIRST_REST", 100.0)
    several = Several(2)
    several.engines[0].errors = [error] * 99
    assert [await several.ask(str(n)) for n in range(4)] == ["b"] * 4
    answers = await several.llm.complete_many([Request([user(f"batch {n}")]) for n in range(6)])
    assert [answer.text for answer in answers] == ["b"] * 6
    assert several.engines[0].asked == ["0"]  # then it rests
    assert (several.rests, several.lost) == ([("a", str(error))], [])
    several.seats[0].rest_ends = 0.0
    answers = await several.llm.complete_many([Request([user(f"later {n}")]) for n in range(6)])
    assert [answer.text for answer in answers] == ["b"] * 6
    assert len(several.engines[0].asked) == 2  # of a batch one prompt is tried on it
    assert several.seats[0].rest_seconds == 200.0
    several.engines[0].errors, several.seats[0].rest_ends = [], 0.0
    assert await several.ask("again") == "a"
    assert several.rests == [("a", str(error)), ("a", "None")]
    assert [seat.load for seat in several.seats] == [0, 0]


async def test_a_batch_of_which_an_endpoint_answers_a_part_loses_none():
    several = Several(2)
    several.engines[0].errors = PASSING[:1] * 2
    answers = await several.llm.complete_many([Request([user(str(n))]) for n in range(8)])
    assert sorted(answer.text for answer in answers) == ["a"] * 2 + ["b"] * 6


async def test_where_all_endpoints_fail_each_is_asked_once_and_the_error_is_told():
    several = Several(2)
    for engine in several.engines:
        engine.errors = PASSING[:1] * 99
    with pytest.raises(EndpointError, match="bad gateway"):
        await several.ask("one")
    assert [engine.asked for engine in several.engines] == [["one"], ["one"]]
    several.engines[1].errors = []
    assert await several.ask("two") == "b"  # both rest, and are asked all the same
    answers = await several.llm.complete_many([Request([user("three")])] * 4)
    assert [answer.text for answer in answers] == ["b"] * 4


async def test_the_only_endpoint_does_not_rest():
    several = Several(1)
    several.engines[0].errors = PASSING[:1]
    with pytest.raises(EndpointError, match="bad gateway"):
        await several.ask("one")
    assert await several.ask("two") == "a"
    assert several.rests == []


def test_a_rest_is_as_long_as_the_endpoint_asks_for_and_short_again_after_long_service():
    seat = Seat("a", Answering("a"))
    error = EndpointError("too many requests", 429, "too many requests")
    error.retry_after = 60.0
    assert seat.rest(error, 100.0)
    assert (seat.may_be_asked(159.0), seat.may_be_asked(160.0)) == (False, True)
    assert not seat.answered(120.0)  # it was in flight
    assert seat.answered(161.0)
    assert seat.rest(PASSING[0], 200.0)
    assert seat.rest_seconds == 10.0
    assert seat.answered(211.0)
    assert seat.rest(PASSING[0], 600.0)
    assert seat.rest_seconds == 5.0


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
