"""RLMEnv on the real REPL, with deterministic engines: the loop, how it ends, what is on record."""

import asyncio
import json
import re

import pytest

import rlm_env
from rlm_env.environment import Environment
from rlm_env.llm.base import ContextOverflow, EngineUnavailable, LLMError
from rlm_env.messages import Completion, Usage
from rlm_env.repl import ReplPools
from rlm_env.rollout import Rollout, StopReason
from rlm_env.scaffolds import make_scaffold
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from tests.stubs import StubLLM, echo, fenced, script


class WordCount(rlm_env.Environment):
    def tasks(self, split):
        for n in range(1, 6):
            yield Task(question="How many words?", context="word " * n, gold=str(n))

    def score(self, task, rollout):
        return float(rollout.answer.strip() == task.gold)


@pytest.fixture
def configured(pools):
    """Makes an RLMEnv whose REPLs preload no packages."""

    def make(**config) -> RLMEnv:
        config = {"repl": rlm_env.ReplConfig(preload=()), **config}
        return RLMEnv(WordCount(), RLMConfig(**config), pools=pools)

    return make


@pytest.fixture
async def env(configured):
    async with configured() as env:
        yield env


DONE = fenced('answer["content"] = str(len(context.split()))\nanswer["ready"] = True')


async def test_an_environment_is_a_dozen_lines(env):
    tasks = env.tasks("eval").take(10)
    assert [task.id for task in tasks] == [f"eval-{i}" for i in range(5)]
    for task in tasks:
        rollout = await env.rollout(task, script(DONE))
        assert rollout.stop_reason is StopReason.READY
        assert env.score(task, rollout).value == 1.0
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0


async def test_the_root_llm_is_never_shown_the_context(env):
    root = script(DONE)
    await env.rollout(Task("Q?", "the secret word is xyzzy"), root)
    assert "xyzzy" not in json.dumps(root.seen)
    assert "str, 24 characters" in root.seen[0][1]["content"]


async def test_what_a_cell_printed_and_raised_is_told_and_state_persists(env):
    root = script(fenced("x = 41\nprint('hello')"), fenced("print(x + 1)\n1 / 0"), fenced("x"), DONE)
    rollout = await env.rollout(Task("Q?", "a b"), root)
    told = [message["content"] for message in rollout.messages[2:] if message["role"] == "user"]
    assert "hello" in told[0]
    assert "42" in told[1]
    assert "ZeroDivisionError" in told[1]
    assert "41" in told[2]
    assert rollout.answer == "2"
    assert rollout.metrics["cells_failed"] == 1
    assert rollout.info["sampling"]["root"]["temperature"] == 1.0
    assert rollout.info["sandbox"]["level"] in ("guard", "sealed", "jail")
    assert rollout.info["sandbox"]["attacks"]
    assert rollout.turns[1].error


async def test_a_reply_without_code_is_answered_with_the_reason(env):
    rollout = await env.rollout(Task("Q?", "a"), script("It is one.", DONE))
    assert "Nothing ran" in rollout.messages[3]["content"]
    assert rollout.stop_reason is StopReason.READY


async def test_several_blocks_run_in_order_until_the_answer_is_ready(env):
    cells = ["x = 1", 'answer["content"] = str(x); answer["ready"] = True', "x = 2"]
    reply = "\nand then\n".join(fenced(cell) for cell in cells)
    rollout = await env.rollout(Task("Q?", "a"), script(reply))
    assert rollout.answer == "1"
    assert len(rollout.turns[0].code) == 2


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ('answer["content"] = "a"; answer["ready"] = True', "a"),
        ('answer["ready"] = True; answer["content"] = "a"', "a"),
        ('answer.update(content="a", ready=True)', "a"),
        ('answer |= {"content": "a", "ready": True}', "a"),
        ('answer = {"content": "a", "ready": True}', "a"),
        ('answer["content"] = 7; answer["ready"] = True', "7"),
        ('answer["content"] = ["a"]; answer["ready"] = 1', None),
        ('def f():\n    answer["content"] = "a"\n    answer["ready"] = True\nf()', "a"),
    ],
)
async def test_answers_in_every_form_that_models_write(env, code, content):
    rollout = await env.rollout(Task("Q?", "a"), script(fenced(code), fenced("pass")))
    assert rollout.stop_reason is StopReason.READY
    assert rollout.answer == content if content is not None else "a" in rollout.answer


async def test_the_answer_so_far_counts_when_the_turns_run_out(configured):
    async with configured(max_turns=2) as env:
        rollout = await env.rollout(Task("Q?", "a b c"), script(fenced('answer["content"] = "3"'), "thinking"))
    assert rollout.stop_reason is StopReason.MAX_TURNS
    assert rollout.answer == "3"
    assert "last turn" in rollout.messages[3]["content"]
    assert len(rollout.turns) == 2


async def test_each_turn_says_how_it_changed_the_answer(env):
    first = fenced('answer["content"] = "a"') + "\n" + fenced('answer["content"] = "b"')
    root = script(first, fenced("x = 1"), fenced('answer["content"] = "b"'), fenced('answer["content"] = ""'), DONE)
    rollout = await env.rollout(env.tasks("eval").take(1)[0], root)
    assert [turn.answer for turn in rollout.turns] == ["b", None, None, "", "1"]
    assert Rollout.from_json(rollout.to_json()).turns == rollout.turns


async def test_root_tokens_end_a_rollout(configured):
    root = script(Completion(fenced("pass"), finish_reason="stop", usage=Usage(10, 5, 0, 1)))
    async with configured(max_root_tokens=40) as env:
        rollout = await env.rollout(Task("Q?", "a"), root)
    assert rollout.stop_reason is StopReason.ROOT_TOKENS
    assert len(rollout.turns) == 3
    assert (rollout.root_usage.prompt_tokens, rollout.root_usage.completion_tokens, rollout.root_usage.calls) == (
        30,
        15,
        3,
    )


async def test_refused_sub_calls_end_a_rollout_and_used_up_ones_do_not(configured):
    ask = 'r = llm_batch(["a", "b", "c"])\nprint(r)'
    async with configured(max_sub_calls=3) as env:
        rollout = await env.rollout(Task("Q?", "a"), script(fenced(ask), DONE), echo())
        assert rollout.stop_reason is StopReason.READY
        root = script(
            fenced(ask + '\nr = llm_batch(["d"])\nprint([bool(x) for x in r], r)\nanswer["content"] = "so far"'), DONE
        )
        rollout = await env.rollout(Task("Q?", "a"), root, echo())
    assert rollout.stop_reason is StopReason.SUB_CALLS
    assert rollout.answer == "so far"
    assert "budget of sub-LLM calls" in rollout.turns[0].observation
    assert rollout.metrics["sub_calls"] == 3


async def test_sub_tokens_end_a_rollout(configured):
    sub = StubLLM(lambda messages: Completion("yes", usage=Usage(50, 1, 0, 1)))
    async with configured(max_sub_tokens=100) as env:
        rollout = await env.rollout(Task("Q?", "a"), script(fenced('llm_batch(["a"])')), sub)
    assert rollout.stop_reason is StopReason.SUB_TOKENS
    assert rollout.sub_usage.calls == 2


@pytest.mark.slow
async def test_wall_time_ends_a_rollout_wherever_it_is(configured):
    async with configured(max_seconds=1.0) as env:
        slow_root = StubLLM(lambda messages: DONE, delay=30)
        assert (await env.rollout(Task("Q?", "a"), slow_root)).stop_reason is StopReason.WALL_TIME
        looping = script(fenced('answer["content"] = "x"'), fenced("while True: pass"))
        rollout = await env.rollout(Task("Q?", "a"), looping)
        assert (rollout.stop_reason, rollout.answer) == (StopReason.WALL_TIME, "x")
        slow_sub = StubLLM(lambda messages: "late", delay=30)
        rollout = await env.rollout(Task("Q?", "a"), script(fenced('llm_batch(["a"])')), slow_sub)
        assert rollout.stop_reason is StopReason.WALL_TIME
        assert rollout.timing.total < 15


async def test_a_cell_that_computes_too_long_is_told_and_its_state_kept(configured):
    root = script(fenced("x = 5\nwhile True: pass"), fenced("print('x is', x)"), DONE)
    async with configured(code_timeout=0.5) as env:
        rollout = await env.rollout(Task("Q?", "a"), root)
    assert rollout.turns[0].timed_out
    assert "time limit" in rollout.turns[0].observation
    assert "x is 5" in rollout.turns[1].observation
    assert rollout.metrics["code_timeouts"] == 1


async def test_waiting_for_sub_llms_is_not_the_codes_time(configured):
    sub = StubLLM(lambda messages: "late", delay=1.0)
    async with configured(code_timeout=0.5) as env:
        rollout = await env.rollout(Task("Q?", "a"), script(fenced('print(llm_batch(["a"]))'), DONE), sub)
    assert "late" in rollout.turns[0].observation
    assert not rollout.turns[0].timed_out
    assert rollout.timing.sub >= 0.9
    assert rollout.turns[0].code_seconds < 0.5


async def test_a_lost_state_is_told_and_the_answer_so_far_still_counts(configured):
    root = script(
        fenced('answer["content"] = "so far"'), fenced("import os; os._exit(3)"), fenced("print(len(context))")
    )
    async with configured(max_turns=3) as env:
        rollout = await env.rollout(Task("Q?", "abc"), root)
    assert rollout.turns[1].state_lost
    assert "started afresh" in rollout.turns[1].observation
    assert "3" in rollout.turns[2].observation
    assert rollout.metrics["states_lost"] == 1


async def test_long_output_is_bounded_with_its_true_length(configured):
    async with configured(max_observation_chars=500, max_turns=1) as env:
        rollout = await env.rollout(Task("Q?", "a"), script(fenced("print('start' + 'x' * 100_000 + 'end')")))
    observation = rollout.turns[0].observation
    assert len(observation) < 1200
    assert "100,0" in observation
    assert "start" in observation
    assert "end" in observation


async def test_an_answer_cut_at_its_limit_is_counted(configured):
    cut = fenced("answer['content'] = 'x' * 1_300; answer['ready'] = True")
    for reply, missing in ((cut, 300), (DONE, 0)):
        async with configured(repl=rlm_env.ReplConfig(preload=(), max_answer_chars=1_000)) as env:
            rollout = await env.rollout(Task("Q?", "a b"), script(reply))
        assert rollout.metrics["answer_chars_truncated"] == missing
        assert len(rollout.answer) <= 1_000


async def test_sub_llm_answers_come_in_order_and_are_on_record(env):
    code = 'r = llm_batch(["a", {"prompt": "b"}, {"messages": [{"role": "user", "content": "c"}]}])\nprint(r)'
    sub = echo()
    rollout = await env.rollout(Task("Q?", "a"), script(fenced(code), DONE), sub)
    assert "['A', 'B', 'C']" in rollout.turns[0].observation
    assert sub.batches == [3], "a batch travels as a batch"
    assert [(call.root_turn, call.batch, call.text) for call in rollout.sub_calls] == [
        (0, 0, "A"),
        (0, 0, "B"),
        (0, 0, "C"),
    ]
    assert rollout.sub_usage.calls == 3
    assert rollout.root_usage.calls == 2


async def test_a_failed_item_is_no_answer_and_the_others_stand(env):
    def reply(messages):
        prompt = messages[-1]["content"]
        return LLMError("the moon was in the way") if prompt == "bad" else prompt.upper()

    code = 'r = llm_batch(["a", "bad", "c"])\nfor x in r: print(bool(x), isinstance(x, str), x)'
    rollout = await env.rollout(Task("Q?", "a"), script(fenced(code), DONE), StubLLM(reply))
    lines = rollout.turns[0].observation.splitlines()
    assert lines[1] == "True True A"
    assert lines[2].startswith("False False")
    assert "the moon was in the way" in lines[2]
    assert lines[3] == "True True C"
    assert rollout.metrics["sub_calls_failed"] == 1
    assert rollout.sub_calls[1].error == "the moon was in the way"


async def test_a_bare_string_is_refused(env):
    rollout = await env.rollout(Task("Q?", "a"), script(fenced('llm_batch("one prompt")'), DONE), echo())
    assert "list" in rollout.turns[0].error
    assert rollout.sub_calls == []


async def test_answers_that_a_failed_cell_paid_for_are_used_again_once(env):
    count = iter(range(100))
    sub = StubLLM(lambda messages: f"{messages[-1]['content']}{next(count)}")
    root = script(
        fenced('r = llm_batch(["p", "p", "q"])\nprint(r)\n1 / 0'),
        fenced('r = llm_batch(["p", "q", "p", "p"])\nprint(r)'),
        fenced('print(llm_batch(["p"]))'),
        DONE,
    )
    rollout = await env.rollout(Task("Q?", "a"), root, sub)
    assert "['p0', 'p1', 'q2']" in rollout.turns[0].observation
    assert "['p0', 'q2', 'p1', 'p3']" in rollout.turns[1].observation, "in order, each once; the fourth is new"
    assert "['p4']" in rollout.turns[2].observation, "after a cell that worked, equal prompts are new samples"
    assert rollout.metrics["sub_calls"] == 5
    assert rollout.metrics["sub_calls_reused"] == 3


async def test_llm_batch_from_threads_and_functions(env):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def ask(x):\n    return llm_batch([x])[0]\n"
        "with ThreadPoolExecutor(8) as pool:\n    r = list(pool.map(ask, 'abcdefgh'))\n"
        "print(''.join(r), llm_batch(llm_batch(['nested'])))"
    )
    rollout = await env.rollout(Task("Q?", "a"), script(fenced(code), DONE), echo())
    assert "ABCDEFGH ['NESTED']" in rollout.turns[0].observation


async def test_tool_calls_are_answered_one_by_one(env):
    def call(id, code):
        return {
            "id": id,
            "type": "function",
            "function": {"name": "python_repl", "arguments": json.dumps({"code": code})},
        }

    first = Completion(
        "", tool_calls=[call("1", "print('one')"), call("2", "print('two')")], finish_reason="tool_calls"
    )
    last = Completion("", tool_calls=[call("3", 'answer.update(content="x", ready=True)')])
    root = script(first, last)
    root.supports_tools = True
    rollout = await env.rollout(Task("Q?", "a"), root)
    tools = [message for message in rollout.messages if message["role"] == "tool"]
    assert [(m["tool_call_id"], "one" in m["content"], "two" in m["content"]) for m in tools] == [
        ("1", True, False),
        ("2", False, True),
    ]
    assert rollout.answer == "x"
    assert "python_repl" in rollout.messages[0]["content"]


async def test_an_overflowing_history_is_an_outcome_and_the_answer_so_far_counts(env):
    rollout = await env.rollout(Task("Q?", "a"), script(fenced('answer["content"] = "x"'), ContextOverflow(2000, 1024)))
    assert rollout.stop_reason is StopReason.CONTEXT_OVERFLOW
    assert rollout.answer == "x"
    assert rollout.metrics["overflow_prompt_tokens"] == 2000


async def test_a_failing_request_is_an_error_and_a_dead_engine_is_raised(env):
    rollout = await env.rollout(Task("Q?", "a"), script(LLMError("bad gateway")))
    assert rollout.stop_reason is StopReason.ERROR
    assert "bad gateway" in rollout.error
    with pytest.raises(EngineUnavailable):
        await env.rollout(Task("Q?", "a"), script(EngineUnavailable("gone")))
    ask = script(fenced('try:\n    llm_batch(["a"])\nexcept BaseException:\n    pass'), DONE)
    with pytest.raises(EngineUnavailable):
        await env.rollout(Task("Q?", "a"), ask, script(EngineUnavailable("gone")))


def comparable(rollout: Rollout) -> str:
    """A rollout without its seconds."""
    record = rollout.to_dict()
    record.pop("timing")
    return re.sub(r'"\w*seconds": [\d.e-]+', "", json.dumps(record))


async def test_rollouts_at_once_equal_rollouts_one_after_the_other(env):
    def reply(messages):
        turn = sum(m["role"] == "assistant" for m in messages)
        if turn == 0:
            return fenced("words = context.split()\nr = llm_batch(words)\nprint(r[:3], len(r))")
        if turn == 1:
            return fenced("import random\nprint(random.random())\nanswer['content'] = ''.join(r)")
        return fenced("answer['ready'] = True")

    tasks = [Task(f"Q{i}?", " ".join(f"w{i}x{j}" for j in range(20)), id=str(i)) for i in range(16)]

    async def one(task):
        return comparable(await env.rollout(task, StubLLM(reply, delay=0.001), echo(), id=f"r{task.id}"))

    at_once = await asyncio.gather(*(one(task) for task in tasks))
    in_turn = [await one(task) for task in tasks]
    assert at_once == in_turn


async def test_a_cancelled_rollout_leaves_the_environment_usable(env):
    running = asyncio.create_task(env.rollout(Task("Q?", "a"), script(fenced("import time; time.sleep(60)"))))
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await env.rollout(Task("Q?", "a b"), script(DONE))).answer == "2"


def test_one_environment_serves_two_event_loops():
    env = RLMEnv(WordCount())

    async def once():
        async with env:
            return await env.rollout(Task("Q?", "a b"), script(DONE))

    assert asyncio.run(once()).answer == "2"
    assert asyncio.run(once()).answer == "2"


async def test_a_pool_that_is_handed_in_is_shared_and_left_open():
    config = RLMConfig(repl=rlm_env.ReplConfig(preload=()))
    async with ReplPools() as pools:
        first, second = RLMEnv(WordCount(), config, pools=pools), RLMEnv(WordCount(), config, pools=pools)
        for env in (first, second, first):
            assert (await env.rollout(Task("Q?", "a b"), script(DONE))).answer == "2"
            await env.aclose()
        [pool] = pools._pools.values()
        assert pool.config.max_output_chars == config.max_observation_chars
        scaffold = make_scaffold("rlm-nosub", WordCount(), {"repl": {"preload": ()}}, pools=pools)
        assert (await scaffold.rollout(Task("Q?", "a b"), script(DONE))).answer == "2"
        assert list(pools._pools.values()) == [pool]


async def test_every_end_survives_json(env):
    rollout = await env.rollout(Task("Q?", "a b"), script(fenced("llm_batch(['a'])"), DONE), echo())
    rollout.score = env.score(Task("Q?", "a b", gold="2"), rollout)
    assert Rollout.from_json(rollout.to_json()) == rollout


async def test_gold_is_out_of_the_models_reach(env):
    code = (
        "import gc\n"
        "print(any('xyzzy-gold' in repr(o) for o in gc.get_objects() if isinstance(o, (str, dict, list))))\n"
        "import os; print(sorted(os.environ))"
    )
    rollout = await env.rollout(
        Task("Q?", "a", gold="xyzzy-gold"), script(fenced(code.replace("xyzzy-gold", "xyz' 'zy-gold")), DONE)
    )
    assert "True" not in rollout.turns[0].observation


async def test_solve():
    rollout = await rlm_env.solve("How many words?", "a b c", script(DONE), max_turns=3)
    assert rollout.answer == "3"


async def test_tips_stand_in_the_prompt_only_when_asked_for(pools):
    class Tipped(WordCount):
        tips = "Count with split()."

    root = script(DONE)
    for tips in (False, True):
        async with RLMEnv(Tipped(), RLMConfig(tips=tips), pools=pools) as env:
            await env.rollout(Task("Q?", "a"), root)
        assert ("Count with split()." in root.seen[-1][0]["content"]) is tips


def test_config_errors_name_the_field():
    with pytest.raises(ValueError, match="max_turn\n"):
        RLMConfig(max_turn=3)
    with pytest.raises(ValueError, match="max_turns"):
        RLMConfig(max_turns=0)
    with pytest.raises(ValueError, match=r"one of: rlm, .*tiny"):
        RLMEnv(WordCount(), RLMConfig(prompt="no-such-prompt"))


def test_environment_is_abstract():
    class Half(Environment):
        def tasks(self, split):
            return []

    with pytest.raises(TypeError, match="score"):
        Half()


async def test_rollouts_of_a_task_can_share_its_context(env):
    task = Task("How many words?", "word " * 1000)
    context = await env.share(task)
    rollouts = await asyncio.gather(*(env.rollout(task, script(DONE), context=context) for _ in range(3)))
    await context.close()
    assert [rollout.answer for rollout in rollouts] == ["1000"] * 3
