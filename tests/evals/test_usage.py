"""The usage of a rollout: names that dashboards know, from any rollout."""

from __future__ import annotations

import math

from rlm_env.evals.usage import NAMES, rollout_usage
from rlm_env.messages import Completion, Usage
from rlm_env.rollout import Rollout
from rlm_env.scaffolds import make_scaffold
from tests.scaffolds.test_scaffolds import TASK, Library, Tipped
from tests.stubs import StubLLM, fenced

OLD = """sub_llm_call_count sub_llm_prompt_tokens sub_llm_completion_tokens sub_llm_total_tool_calls sub_llm_total_turns
sub_llm_batch_count sub_llm_max_batch_size sub_llm_mean_batch_size main_rlm_turns main_rlm_prompt_tokens
main_rlm_completion_tokens repl_total_time_seconds repl_call_count repl_mean_time_seconds"""
"""What `RLMEnv` of verifiers 0.1.10 to 0.1.14 left in its states."""


def test_the_old_names_are_all_there():
    assert set(OLD.split()) <= set(NAMES)
    assert rollout_usage(Rollout()) == dict.fromkeys(NAMES, 0.0)


async def test_a_rollout_of_an_rlm(pools):
    code = "import time\nllm_batch(['a b', 'c'])\nllm_batch(['d'])\ntime.sleep(0.05)"
    done = 'answer["content"] = "2"\nanswer["ready"] = True'

    def reply(messages):
        if messages[0]["role"] != "system":
            return Completion("x y", usage=Usage(10, 2, 4, 1))
        turn = sum(message["role"] == "assistant" for message in messages)
        return Completion(fenced(code if turn == 0 else done), usage=Usage(100, 20, 50, 1))

    scaffold = make_scaffold("rlm", Tipped(), pools=pools)
    try:
        rollout = await scaffold.rollout(TASK, StubLLM(reply, delay=0.02))
    finally:
        await scaffold.aclose()
    found = rollout_usage(rollout)
    assert tuple(found) == NAMES
    exact = {name: value for name, value in found.items() if not name.endswith("seconds")}
    assert exact == {
        "sub_llm_call_count": 3,
        "sub_llm_prompt_tokens": 30,
        "sub_llm_completion_tokens": 6,
        "sub_llm_cached_tokens": 12,
        "sub_llm_total_tool_calls": 0,
        "sub_llm_total_turns": 3,
        "sub_llm_batch_count": 2,
        "sub_llm_max_batch_size": 2,
        "sub_llm_mean_batch_size": 1.5,
        "main_rlm_turns": 2,
        "main_rlm_prompt_tokens": 200,
        "main_rlm_completion_tokens": 40,
        "main_rlm_cached_tokens": 100,
        "main_rlm_tool_calls": 0,
        "repl_call_count": 2,
    }
    assert 0.05 <= found["repl_code_time_seconds"] <= found["repl_total_time_seconds"] - 0.04
    assert found["repl_mean_time_seconds"] == found["repl_total_time_seconds"] / 2
    assert found["repl_total_time_seconds"] < found["total_time_seconds"]
    assert all(math.isfinite(value) for value in found.values())


async def test_tool_calls_of_sub_llms_and_of_the_root(pools):
    call = '```tool\n{"name": "look", "arguments": {"page": 1}}\n```'

    def reply(messages):
        told = any("[look]" in str(message["content"]) for message in messages)
        if "Sub" in messages[-1]["content"] or told:
            return "done" if told else call
        return fenced('answer["content"] = llm_batch(["Sub", "Sub"])[0]\nanswer["ready"] = True')

    scaffold = make_scaffold("rlm", Library(), pools=pools)
    try:
        found = rollout_usage(await scaffold.rollout(TASK, StubLLM(reply)))
    finally:
        await scaffold.aclose()
    assert (found["sub_llm_call_count"], found["sub_llm_total_turns"], found["sub_llm_total_tool_calls"]) == (2, 4, 2)
    plain = StubLLM(lambda messages: "8" if any("[look]" in str(m["content"]) for m in messages) else call)
    found = rollout_usage(await make_scaffold("standard", Library()).rollout(TASK, plain))
    assert (found["main_rlm_turns"], found["main_rlm_tool_calls"], found["repl_call_count"]) == (2, 1, 0)
