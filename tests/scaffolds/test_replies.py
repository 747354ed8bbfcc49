"""Replies in forms of other models and other RLMs, through whole rollouts."""

import json
from pathlib import Path

import pytest

import rlm_env
from rlm_env import prompts
from rlm_env.messages import Completion
from rlm_env.replies import ALIASES
from rlm_env.rollout import Rollout, StopReason
from rlm_env.scaffolds import make_scaffold
from rlm_env.scaffolds.base import ONLY_REASONING
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from tests.scaffolds.test_rlm import WordCount
from tests.stubs import StubLLM, fenced, script

TASK = Task("How many words?", "one two", gold="2", id="t")
DRAFT = "I could just say\n" + fenced("answer['content'] = 'draft'; answer['ready'] = True") + "\nNo.\n</think>\n\n"
DONE = 'answer["content"] = "2"\nanswer["ready"] = True'


@pytest.fixture
def play(pools):
    """Plays a rollout of the engines."""

    async def roll(root: StubLLM, sub: StubLLM | None = None, **config) -> Rollout:
        config = {"repl": rlm_env.ReplConfig(preload=()), "max_turns": 4, **config}
        async with RLMEnv(WordCount(), RLMConfig(**config), pools=pools) as env:
            return await env.rollout(TASK, root, sub)

    return roll


async def test_drafts_before_a_lone_closing_tag_do_not_run(play):
    rollout = await play(script(DRAFT + fenced(DONE)))
    assert rollout.answer == "2"
    assert "draft" in rollout.turns[0].text, "the record holds what the model said"


@pytest.mark.parametrize("thoughts", ["7? No, 8.\n</think>\n\n", "<thinking>7?</thinking>", "[THINK]7?[/THINK]"])
async def test_thoughts_of_a_sub_llm_are_not_its_answer(play, thoughts):
    root = script(fenced('answer["content"] = llm_batch(["6+2?"])[0]\nanswer["ready"] = True'))
    rollout = await play(root, StubLLM(lambda messages: thoughts + "8"))
    assert rollout.answer == "8"
    assert rollout.sub_calls[0].text == thoughts + "8"


async def test_a_sub_llm_that_only_thought_has_failed(play):
    root = script(fenced('r = llm_batch(["6+2?"])[0]\nanswer["content"] = f"{bool(r)} {r}"\nanswer["ready"] = True'))
    rollout = await play(root, StubLLM(lambda messages: "7? No, 8.\n</think>\n"))
    assert rollout.answer.startswith("False")
    assert rollout.sub_calls[0].error == "it ended its thoughts without an answer"


@pytest.mark.parametrize(("turns", "asked"), [(30, 3), (2, 2)])
async def test_an_endpoint_that_sends_thoughts_alone_is_an_error_and_is_not_paid_to_the_end(play, turns, asked):
    root = StubLLM(lambda messages: Completion("", reasoning="I count.", finish_reason="stop"))
    rollout = await play(root, max_turns=turns)
    assert (rollout.stop_reason, rollout.error) == (StopReason.ERROR, f"LLMError: {ONLY_REASONING}")
    assert len(root.seen) == len(rollout.turns) == asked


async def test_a_model_that_thinks_and_then_writes_code_goes_on(play):
    thought = Completion("", reasoning="I count.", finish_reason="stop")
    assert (await play(script(thought, thought, fenced(DONE)))).answer == "2"
    assert (await play(script(fenced("1"), thought, thought, thought, fenced(DONE)), max_turns=6)).answer == "2"


async def test_a_defect_in_the_middle_of_a_rollout_keeps_what_was_paid_for(play):
    def reply(messages):
        if len(messages) > 3:
            raise KeyError("a defect")
        return fenced("print(1)")

    rollout = await play(StubLLM(reply))
    assert rollout.stop_reason is StopReason.ERROR
    assert rollout.error.startswith("KeyError: 'a defect' (test_replies.py, line ")
    assert "in reply" in rollout.info["traceback"]
    assert (len(rollout.turns), rollout.root_usage.calls, rollout.question) == (1, 1, TASK.question)


async def test_a_mistake_before_anything_was_asked_is_raised():
    root = script(fenced(DONE))
    with pytest.raises(TypeError, match=r"the context holds a builtins\.object"):
        await rlm_env.solve("Q?", [object()], root)
    assert root.seen == []


@pytest.mark.parametrize("name", ["standard", "summary"])
async def test_thoughts_are_not_the_answer_of_a_plain_llm(name):
    scaffold = make_scaffold(name, WordCount())
    rollout = await scaffold.rollout(TASK, script("It is (A)? No.\n</think>\n\nIt is (B)"))
    assert rollout.answer == "It is (B)"


async def test_a_tool_call_whose_code_is_fenced_runs(play):
    arguments = json.dumps({"code": fenced(DONE)})
    call = {"id": "1", "type": "function", "function": {"name": "python_repl", "arguments": arguments}}
    rollout = await play(script(Completion("", tool_calls=[call], finish_reason="tool_calls")))
    assert rollout.answer == "2"
    assert rollout.turns[0].tool_calls == [call]


@pytest.mark.parametrize(
    ("reply", "uses"),
    [
        ("FINAL(2)", 1),
        (fenced("n = len(context.split())") + "\nFINAL(3)", 0),
        (fenced("n = len(context.split())\nFINAL_VAR('n')"), 1),
        (fenced("def FINAL(x):\n    answer.update(content=x, ready=True)\nFINAL(2)"), 0),
        (fenced('n = llm_query("how many?")\nFINAL(n)'), 2),
    ],
)
async def test_aliases_hand_in_an_answer_and_their_uses_are_recorded(play, reply, uses):
    rollout = await play(script(reply, fenced(DONE)), StubLLM(lambda messages: "2"))
    assert (rollout.answer, rollout.stop_reason) == ("2", StopReason.READY)
    assert rollout.metrics["alias_uses"] == uses


async def test_aliases_can_be_turned_off(play):
    rollout = await play(script("FINAL(3)", fenced("FINAL(3)"), fenced(DONE)), aliases=False)
    assert rollout.answer == "2"
    assert "no code" in rollout.turns[0].observation
    assert "NameError" in rollout.turns[1].observation


def test_no_prompt_names_an_alias():
    for path in Path(prompts.__file__).parent.glob("*.txt"):
        text = path.read_text()
        assert not [name for name in ALIASES if name in text], path
    assert not [name for name in ALIASES if name in rlm_env.Environment.tips]
