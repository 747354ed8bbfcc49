"""Models that think aloud, in every scaffold: thoughts parted by the engine, or left in the text as `<think>`."""

from __future__ import annotations

import pytest

from rlm_env.messages import Completion
from rlm_env.rollout import StopReason
from rlm_env.scaffolds import SCAFFOLDS, make_scaffold
from rlm_env.task import Task
from tests.scaffolds.test_scaffolds import Tipped
from tests.stubs import StubLLM, fenced

TASK = Task("How many words?", "one two three", gold="3", id="t")
DECOY = fenced('answer["content"] = "wrong"\nanswer["ready"] = True')
CODE = {
    True: fenced('n = llm_batch(["Count: " + context])[0]\nanswer["content"] = n\nanswer["ready"] = True'),
    False: fenced('answer["content"] = str(len(context.split()))\nanswer["ready"] = True'),
}
FIRST = fenced("print(len(context))")


@pytest.mark.parametrize("parted", [True, False])
@pytest.mark.parametrize("name", SCAFFOLDS)
async def test_thoughts_are_neither_code_nor_answer_in_any_scaffold(pools, name, parted):
    def think(text: str) -> Completion:
        thought = f"Perhaps\n{DECOY}\nor 17? No."
        if parted:
            return Completion(text, reasoning=thought, finish_reason="stop")
        return Completion(f"<think>{thought}</think>\n\n{text}", finish_reason="stop")

    def reply(messages):
        if messages[-1]["content"].startswith("Count: "):
            return think("3")
        if messages[0]["role"] != "system":
            return think("3")
        turn = sum(message["role"] == "assistant" for message in messages)
        return think(FIRST if turn == 0 else CODE[name != "rlm-nosub"])

    scaffold = make_scaffold(name, Tipped(), pools=pools)
    try:
        rollout = await scaffold.rollout(TASK, StubLLM(reply))
    finally:
        await scaffold.aclose()
    assert (rollout.answer, rollout.stop_reason) == ("3", StopReason.READY)
    for turn in rollout.turns:  # on record, whole
        assert ("17?" in turn.reasoning) if parted else ("17?" in turn.text)
    replies = [message for message in rollout.messages if message["role"] == "assistant"]
    assert all(("reasoning_content" in reply) == parted for reply in replies)


async def test_a_sub_llm_that_never_stopped_thinking_is_an_error_and_not_an_empty_answer(pools):
    def reply(messages):
        if messages[0]["role"] != "system":
            return Completion("<think>One, two, and", finish_reason="length")
        return fenced('n = llm_batch(["Count"])[0]\nanswer["content"] = f"{bool(n)} {n}"\nanswer["ready"] = True')

    scaffold = make_scaffold("rlm", Tipped(), pools=pools)
    try:
        rollout = await scaffold.rollout(TASK, StubLLM(reply))
    finally:
        await scaffold.aclose()
    assert rollout.answer.startswith("False")
    assert "token limit was used up before it had answered" in rollout.answer
    assert rollout.metrics["sub_calls_failed"] == 1
