"""Sub-LLMs with tools, on the real REPL: turns, budgets, the record, and who may call what."""

import asyncio
import json

import pytest

import rlm_env
from rlm_env.llm.base import ContextOverflow, EngineUnavailable, LLMError
from rlm_env.messages import Completion, Usage
from rlm_env.rollout import Rollout, StopReason
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.conversation import ASK_FOR_ANSWER, RESULT_DROPPED
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.scaffolds.sub_llm import NO_ANSWER, STOPPED
from rlm_env.task import Task
from rlm_env.train.learner.samples import rollout_samples
from tests.stubs import StubLLM, fenced, script

CITIES = {"France": "Paris", "Peru": "Lima", "Chad": "N'Djamena"}


class Atlas(rlm_env.Environment):
    """Questions that only the tool can answer."""

    def __init__(self):
        self.asked = []
        self.closed = 0

    def tasks(self, split):
        yield Task(question="What is the capital of Peru?", context="", gold="Lima")

    def score(self, task, rollout):
        return float(rollout.answer == task.gold)

    def tools(self, task):
        async def capital(country: str) -> str:
            """Looks up a capital. Takes a moment."""
            self.asked.append(country)
            return CITIES[country]

        return [capital]

    async def aclose(self):
        self.closed += 1


@pytest.fixture
def configured(pools):
    """Makes an RLMEnv whose REPLs preload no packages."""

    def make(environment: rlm_env.Environment | None = None, **config) -> RLMEnv:
        config = RLMConfig(repl=rlm_env.ReplConfig(preload=()), **config)
        return RLMEnv(environment or Atlas(), config, pools=pools)

    return make


def calls(*countries, text="", **fields) -> Completion:
    """A reply that calls the tool natively, once per country."""
    made = [
        {"id": f"c{i}", "type": "function", "function": {"name": "capital", "arguments": json.dumps({"country": name})}}
        for i, name in enumerate(countries)
    ]
    return Completion(text, tool_calls=made, finish_reason="tool_calls", **fields)


def block(country: str) -> str:
    return f'```tool\n{{"name": "capital", "arguments": {{"country": "{country}"}}}}\n```'


def native(reply) -> StubLLM:
    return StubLLM(reply, supports_tools=True)


def looks_up(messages):
    """Asks for the country that its prompt names, then answers with the capital."""
    if messages[-1]["role"] == "tool":
        return messages[-1]["content"]
    return calls(messages[-1]["content"])


ASK = fenced('answer["content"] = str(llm_batch(["Peru"])[0])\nanswer["ready"] = True')
TASK = Task("What is the capital of Peru?", "", gold="Lima")


async def test_a_sub_llm_looks_up_and_answers(configured):
    sub = native(looks_up)
    async with configured() as env:
        rollout = await env.rollout(TASK, script(ASK), sub)
        assert env.score(TASK, rollout).value == 1.0
    assert env.environment.closed == 1
    (call,) = rollout.sub_calls
    (turn,) = call.tool_turns
    (result,) = turn.tool_results
    assert (call.text, call.error) == ("Lima", None)
    assert (result.name, result.arguments, result.output, result.error, result.id) == (
        "capital",
        '{"country": "Peru"}',
        "Lima",
        None,
        "c0",
    )
    assert [m["role"] for m in sub.seen[-1]] == ["user", "assistant", "tool"]
    assert rollout.sub_usage.calls == call.usage.calls == 2
    assert {k: v for k, v in rollout.metrics.items() if "tool_calls" in k or "sub_" in k} == {
        "sub_calls": 1,
        "sub_batches": 1,
        "sub_calls_failed": 0,
        "sub_calls_reused": 0,
        "sub_turns": 2,
        "tool_calls": 1,
        "tool_calls_capital": 1,
        "tool_calls_failed": 0,
        "tool_calls_failed_capital": 0,
    }
    assert rollout.info["tools"] == {"for": ["sub"], "names": ["capital"]}
    assert Rollout.from_json(rollout.to_json()) == rollout


async def test_a_batch_goes_on_in_rounds_and_each_round_is_a_batch(configured):
    def reply(messages):
        rounds = sum(m["role"] == "assistant" for m in messages)
        return calls("Peru") if rounds < int(messages[0]["content"]) else f"after {rounds}"

    sub = native(reply)
    async with configured() as env:
        root = script(fenced('print(llm_batch(["0", "2", "1", "0"]))\nanswer["ready"] = True'))
        rollout = await env.rollout(TASK, root, sub)
    assert sub.batches == [4, 2, 1]
    assert [call.text for call in rollout.sub_calls] == ["after 0", "after 2", "after 1", "after 0"]
    assert "['after 0', 'after 2', 'after 1', 'after 0']" in rollout.turns[0].observation


async def test_parallel_calls_run_side_by_side_and_are_told_in_order(configured):
    class Slow(Atlas):
        def tools(self, task):
            arrived = asyncio.Barrier(3)

            async def capital(country: str) -> str:
                """Answers once all three calls are there."""
                await arrived.wait()
                return CITIES[country]

            return [capital]

    sub = native(lambda m: calls(*CITIES) if len(m) == 1 else " ".join(x["content"] for x in m[2:]))
    async with configured(Slow()) as env:
        rollout = await env.rollout(TASK, script(ASK), sub)
    assert rollout.answer == "Paris Lima N'Djamena"


async def test_the_last_turn_has_no_tools_and_asks_for_the_answer(configured):
    tools_given = []

    class Eager(StubLLM):
        async def complete(self, messages, tools=None, sampling=None):
            tools_given.append(bool(tools))
            return await super().complete(messages, tools, sampling)

    sub = Eager(lambda m: "Lima" if m[-1]["content"] == ASK_FOR_ANSWER else calls("Peru"), supports_tools=True)
    async with configured(max_tool_turns=3) as env:
        rollout = await env.rollout(TASK, script(ASK), sub)
    assert tools_given == [True, True, True, False]
    assert rollout.answer == "Lima"
    assert len(rollout.sub_calls[0].tool_turns) == 3


async def test_a_sub_llm_that_never_answers_is_an_error(configured):
    async with configured(max_tool_turns=2) as env:
        rollout = await env.rollout(TASK, script(ASK), native(lambda m: calls("Peru")))
        assert rollout.sub_calls[0].error == NO_ANSWER
        assert "Lima" not in rollout.answer
        rollout = await env.rollout(TASK, script(ASK), StubLLM(lambda m: block("Peru")))
        assert rollout.sub_calls[0].error == NO_ANSWER


async def test_engines_without_tool_calls_get_the_text_protocol(configured):
    sub = StubLLM(lambda m: block("Peru") if len(m) == 2 else m[-1]["content"].splitlines()[1])
    async with configured(sub_system_prompt="Be brief.") as env:
        rollout = await env.rollout(TASK, script(ASK), sub)
    assert rollout.answer == "Lima"
    system, user = sub.seen[0]
    assert system["content"].startswith("Be brief.\n\nYou have tools.")
    assert "capital(country: string): Looks up a capital. Takes a moment." in system["content"]
    assert [m["role"] for m in sub.seen[1]] == ["system", "user", "assistant", "user"]
    assert rollout.sub_calls[0].messages == [system, user]


async def test_the_last_turn_of_the_text_protocol_has_no_two_user_messages_in_a_row(configured):
    sub = StubLLM(lambda m: "Lima" if ASK_FOR_ANSWER in m[-1]["content"] else block("Peru"))
    async with configured(max_tool_turns=1) as env:
        rollout = await env.rollout(TASK, script(ASK), sub)
    assert rollout.answer == "Lima"
    assert [m["role"] for m in sub.seen[-1]] == ["system", "user", "assistant", "user"]


async def test_wrong_calls_are_told_and_the_conversation_goes_on(configured):
    def reply(messages):
        told = [m["content"] for m in messages if m["role"] == "tool"]
        return calls("Atlantis") if not told else calls("Peru") if len(told) == 1 else told[-1]

    async with configured() as env:
        rollout = await env.rollout(TASK, script(ASK), native(reply))
    assert rollout.answer == "Lima"
    assert rollout.sub_calls[0].tool_turns[0].tool_results[0].error == "KeyError: 'Atlantis'"
    assert rollout.metrics["tool_calls_failed_capital"] == 1


async def test_every_turn_counts_and_a_budget_ends_a_call_in_between(configured):
    ask = fenced('r = llm_batch(["Peru", "Chad"])\nprint(r)\nanswer["content"] = str([bool(x) for x in r])')
    async with configured(max_sub_calls=3) as env:
        rollout = await env.rollout(TASK, script(ask), native(looks_up))
    assert rollout.stop_reason is StopReason.SUB_CALLS
    assert rollout.answer == "[True, False]"
    first, second = rollout.sub_calls
    assert (first.text, first.error) == ("Lima", None)
    assert second.error == "the budget of sub-LLM calls is used up"
    assert len(second.tool_turns) == 1
    assert rollout.sub_usage.calls == 3


async def test_sub_tokens_of_all_turns_count(configured):
    sub = native(lambda m: calls("Peru", usage=Usage(50, 1, 0, 1)))
    async with configured(max_sub_tokens=100) as env:
        rollout = await env.rollout(TASK, script(fenced('llm_batch(["a"])')), sub)
    assert rollout.stop_reason is StopReason.SUB_TOKENS
    assert (rollout.sub_usage.calls, rollout.sub_usage.prompt_tokens) == (2, 100)


@pytest.mark.parametrize("max_tool_turns", [1, 8])
async def test_results_that_outgrow_the_window_are_left_out(configured, max_tool_turns):
    def reply(messages):
        told = [m["content"] for m in messages if m["role"] == "tool"]
        if "Lima" in told:
            return ContextOverflow(2000, 1000)
        return "no idea" if told else calls("Peru")

    async with configured(max_tool_turns=max_tool_turns) as env:
        rollout = await env.rollout(TASK, script(ASK), sub := native(reply))
    assert rollout.answer == "no idea"
    assert [m["content"] for m in sub.seen[-1][2:]] == [f"Error: {RESULT_DROPPED}", ASK_FOR_ANSWER]
    assert rollout.sub_calls[0].tool_turns[0].tool_results[0].error == RESULT_DROPPED


async def test_an_overflow_that_stays_and_other_errors_end_the_call_only(configured):
    for error in (ContextOverflow(2000, 1000), LLMError("the moon was in the way")):
        async with configured() as env:
            sub = native(lambda m, error=error: error if len(m) > 1 else calls("Peru"))
            rollout = await env.rollout(TASK, script(ASK), sub)
        assert rollout.stop_reason is StopReason.READY
        assert str(error) in rollout.sub_calls[0].error
        assert len(rollout.sub_calls[0].tool_turns) == 1


async def test_a_dead_engine_is_raised_from_any_round(configured):
    sub = native(lambda m: EngineUnavailable("gone") if len(m) > 1 else calls("Peru"))
    async with configured() as env:
        with pytest.raises(EngineUnavailable):
            await env.rollout(TASK, script(ASK), sub)


@pytest.mark.slow
async def test_a_call_that_is_stopped_keeps_its_turns_and_says_so(configured):
    class Stuck(Atlas):
        def tools(self, task):
            async def capital(country: str) -> str:
                """Never comes back."""
                await asyncio.sleep(60)

            return [capital]

    async with configured(Stuck(), max_seconds=4.0) as env:
        rollout = await env.rollout(TASK, script(ASK), native(looks_up))
    assert rollout.stop_reason is StopReason.WALL_TIME
    assert rollout.sub_calls[0].error == STOPPED
    assert len(rollout.sub_calls[0].tool_turns) == 1


async def test_tokens_of_every_turn_are_on_record_and_trained_once(configured):
    def tokens(completion, prompt_ids, ids):
        completion.prompt_ids, completion.completion_ids, completion.logprobs = prompt_ids, ids, [-1.0] * len(ids)
        return completion

    def reply(messages):
        if len(messages) == 1:
            return tokens(calls("Peru"), [1, 2], [3, 4])
        return tokens(Completion("Lima"), [1, 2, 3, 4, 5], [6])

    root = script(tokens(Completion(ASK), [9], [8]))
    async with configured() as env:
        rollout = await env.rollout(TASK, root, native(reply))
    rows = rollout_samples(Rollout.from_json(rollout.to_json()))
    assert [(row.token_ids, row.mask) for row in rows] == [
        ([9, 8], [False, True]),
        ([1, 2, 3, 4, 5, 6], [False, False, True, True, False, True]),
    ]


async def test_the_root_is_told_and_neither_it_nor_its_code_has_the_tools(configured):
    code = "try:\n    capital('Peru')\nexcept NameError as error:\n    print('no', error)"
    root = script(calls("Peru"), fenced(code))
    async with configured(max_turns=2) as env:
        rollout = await env.rollout(TASK, root, native(looks_up))
    assert "- capital: Looks up a capital." in rollout.messages[0]["content"]
    assert "Neither you nor your code" in rollout.messages[0]["content"]
    assert "there is no tool 'capital'" in rollout.turns[0].observation
    assert "no name 'capital'" in rollout.turns[1].observation
    assert env.environment.asked == []


@pytest.mark.parametrize("supports_tools", [True, False])
async def test_a_root_with_tools_calls_them_beside_the_repl(configured, supports_tools):
    look = calls("Peru", "Chad") if supports_tools else f"{block('Peru')}\n{block('Chad')}"
    done = fenced('answer["content"] = "Lima"; answer["ready"] = True')
    both = Completion(fenced("print(6 * 7)") + "\n" + block("France"))
    if supports_tools:
        both = calls("France")
        code = {"name": "python_repl", "arguments": '{"code": "print(6 * 7)"}'}
        both.tool_calls.append({"id": "p", "type": "function", "function": code})
    root = script(look, both, done)
    root.supports_tools = supports_tools
    async with configured(tools_for="root") as env:
        rollout = await env.rollout(TASK, root, native(lambda m: "unused"))
    assert rollout.answer == "Lima"
    assert env.environment.asked == ["Peru", "Chad", "France"]
    assert "Lima" in rollout.turns[0].observation
    assert "Nothing ran" not in rollout.turns[0].observation
    assert "Paris" in rollout.turns[1].observation
    assert "42" in rollout.turns[1].observation
    assert [len(turn.tool_results) for turn in rollout.turns] == [2, 1, 0]
    assert rollout.metrics["tool_calls_capital"] == 3
    roles = [m["role"] for m in rollout.messages]
    assert roles.count("tool") == (4 if supports_tools else 0)


@pytest.mark.parametrize(
    ("config", "users"),
    [
        ({}, ["sub"]),
        ({"tools_for": "root"}, ["root"]),
        ({"tools_for": "both"}, ["root", "sub"]),
        ({"tools_for": "none"}, None),
        ({"sub_llms": False}, ["root"]),
        ({"sub_llms": False, "tools_for": "none"}, None),
    ],
)
async def test_who_has_the_tools(configured, config, users):
    async with configured(**config) as env:
        rollout = await env.rollout(TASK, script(fenced('answer["ready"] = True')))
    assert rollout.info.get("tools", {}).get("for") == users
    assert ("tool_calls" in rollout.metrics) == (users is not None)
    told = rollout.messages[0]["content"]
    assert ("You have tools" in told) == ("root" in (users or ()))
    assert ("models that answer `llm_batch` have" in told) == ("sub" in (users or ()))


async def test_a_wall_time_ends_the_roots_own_tools_too(configured):
    class Stuck(Atlas):
        def tools(self, task):
            async def capital(country: str) -> str:
                """Never comes back."""
                await asyncio.sleep(60)

            return [capital]

    async with configured(Stuck(), max_seconds=1.0, tools_for="root") as env:
        rollout = await env.rollout(TASK, native(lambda m: calls("Peru")))
    assert rollout.stop_reason is StopReason.WALL_TIME


async def test_solve_takes_functions():
    async def capital(country: str) -> str:
        """Looks up a capital."""
        return CITIES[country]

    config = {"repl": rlm_env.ReplConfig(preload=())}
    rollout = await rlm_env.solve("Q?", "", script(ASK), native(looks_up), tools=[capital], **config)
    assert rollout.answer == "Lima"
