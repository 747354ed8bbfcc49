"""Events of a rollout: what a listener is told, in which order, and that it can do no harm."""

import asyncio

import pytest
import pytest_asyncio

import rlm_env
from rlm_env.events import (
    AnswerChanged,
    BudgetSpent,
    CodeEnded,
    CodeStarted,
    Event,
    RolloutEnded,
    SubCallEnded,
    SubCallStarted,
    TurnReplied,
)
from rlm_env.rollout import StopReason
from rlm_env.scaffolds import make_scaffold
from rlm_env.task import Task
from tests.stubs import StubLLM, echo, fenced, script

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = fenced('parts = llm_batch(["one", "two"])\nanswer["content"] = parts[0]\nprint(parts)')
DONE = fenced('answer["content"] = "done"\nanswer["ready"] = True')


class Question(rlm_env.Environment):
    def tasks(self, split):
        yield Task("Q?", "a context", id="only")

    def score(self, task, rollout):
        return 0.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools():
    async with rlm_env.ReplPools() as pools:
        yield pools


async def heard(pools, root: StubLLM, sub: StubLLM, scaffold: str = "rlm", **options):
    """Events and record of one rollout."""
    events: list[Event] = []
    repl = {"repl": rlm_env.ReplConfig(preload=())} if scaffold != "standard" else {}
    env = make_scaffold(scaffold, Question(), {**repl, **options}, pools=pools)
    (task,) = env.environment.tasks("eval")
    return events, await env.rollout(task, root, sub, on_event=events.append)


async def test_a_rollout_tells_what_happens_in_order(pools):
    events, rollout = await heard(pools, script(ASK, DONE), echo())
    kinds = [type(event) for event in events]
    assert kinds == [
        *(TurnReplied, BudgetSpent, CodeStarted, SubCallStarted, SubCallStarted, SubCallEnded, SubCallEnded),
        *(BudgetSpent, CodeEnded, AnswerChanged, TurnReplied, BudgetSpent, CodeStarted, CodeEnded, AnswerChanged),
        RolloutEnded,
    ]
    assert {event.rollout_id for event in events} == {rollout.id}
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)
    answers = [(event.content, event.ready) for event in events if isinstance(event, AnswerChanged)]
    assert answers == [("ONE", False), ("done", True)]
    outputs = [event.output for event in events if isinstance(event, CodeEnded)]
    assert "['ONE', 'TWO']" in outputs[0]
    calls = [event.call for event in events if isinstance(event, SubCallEnded)]
    assert calls == rollout.sub_calls
    (end,) = [event for event in events if isinstance(event, RolloutEnded)]
    assert end.rollout is rollout


async def test_a_cell_that_fails_says_so(pools):
    events, _ = await heard(pools, script(fenced("1 / 0"), DONE), echo())
    (failed, _) = [event for event in events if isinstance(event, CodeEnded)]
    assert "ZeroDivisionError" in failed.error


async def test_a_sub_call_that_is_refused_ends_with_its_reason(pools):
    events, _ = await heard(pools, script(ASK, DONE), echo(), max_sub_calls=1)
    assert [event.call.text for event in events if isinstance(event, SubCallEnded)] == ["ONE"]


@pytest.mark.parametrize("scaffold", ["standard", "summary"])
async def test_scaffolds_without_a_repl_tell_their_turns_and_their_answer(pools, scaffold):
    events, rollout = await heard(pools, script("the answer"), echo(), scaffold)
    assert [type(event) for event in events] == [TurnReplied, BudgetSpent, AnswerChanged, RolloutEnded]
    assert rollout.answer == "the answer"


async def test_a_listener_that_raises_is_dropped_and_the_rollout_goes_on(pools, caplog):
    seen: list[Event] = []

    def listener(event: Event) -> None:
        seen.append(event)
        raise RuntimeError("the display is broken")

    env = make_scaffold("rlm", Question(), {"repl": rlm_env.ReplConfig(preload=())}, pools=pools)
    (task,) = env.environment.tasks("eval")
    rollout = await env.rollout(task, script(DONE), on_event=listener)
    assert rollout.stop_reason is StopReason.READY
    assert rollout.answer == "done"
    assert len(seen) == 1
    assert "the display is broken" in caplog.text


async def test_rollouts_side_by_side_tell_their_own(pools):
    (first, one), (second, two) = await asyncio.gather(
        heard(pools, script(ASK, DONE), echo()), heard(pools, script(DONE), echo())
    )
    assert {event.rollout_id for event in first} == {one.id} != {event.rollout_id for event in second} == {two.id}
