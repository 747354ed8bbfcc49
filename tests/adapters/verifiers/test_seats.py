"""Root and sub-LLMs in seats of their own: another model for sub-calls, and training the root alone."""

from __future__ import annotations

import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")

from tests.adapters.verifiers.play import chat_reply, env_config, eval_client, play
from tests.adapters.verifiers.test_rollouts import TINY, endpoint, scripted
from tests.stub_endpoint import stub_endpoint

pytestmark = pytest.mark.slow

SUB = {"model": "small", "sampling": {"temperature": 0.2}}


async def test_sub_calls_are_traces_of_another_model_and_another_sampling():
    config = env_config("needle-rlm", {"tools": False}, num_tasks=2, separate_sub=True, sub=SUB, **TINY)
    async with endpoint() as stub:
        episodes = await play(config, eval_client(stub.base_url), {"temperature": 0.9}, model="large")
    for episode in episodes:
        assert episode.ok, episode.errors
        *subs, root = episode.traces
        rollout = root.state.rollout
        assert {trace.agent.name for trace in subs} == {"sub"}
        assert (root.agent.name, root.agent.trainable) == ("agent", True)
        assert not any(trace.agent.trainable for trace in subs)
        assert len(subs) == len(rollout.sub_calls) > 1
        assert sorted(trace.root_reply or trace.last_reply for trace in subs) == sorted(
            call.text for call in rollout.sub_calls
        )
        assert root.num_turns == len(rollout.turns) == 2
        assert root.info["rollout"]["info"]["sampling"]["sub"]["temperature"] == 0.2
        assert {call.text for call in rollout.sub_calls} != {""}
    for body in stub.bodies:
        is_root = body["messages"][0]["role"] == "system"
        assert (body["model"], body["temperature"]) == (("large", 0.9) if is_root else ("small", 0.2))


async def test_a_failed_sub_call_is_an_error_that_the_code_sees():
    def answer(_, body):
        if body["model"] == "small":
            return 400, {"error": {"message": "no"}}
        return chat_reply(scripted(body["messages"]))

    config = env_config("needle-rlm", {"tools": False}, num_tasks=1, separate_sub=True, sub=SUB, **TINY)
    async with stub_endpoint(answer) as stub:
        (episode,) = await play(config, eval_client(stub.base_url), model="large")
    *subs, root = episode.traces
    assert root.ok
    assert root.metrics["sub_calls_failed"] == len(subs) > 0
    assert "upstream 400" in root.state.rollout.sub_calls[0].error


async def test_sub_traces_can_be_trained_and_a_limit_that_cannot_end_is_refused():
    parts = {"separate_sub": True, "train_sub": True, "num_tasks": 1, **TINY}
    async with endpoint() as stub:
        (episode,) = await play(env_config("needle-rlm", {"tools": False}, **parts), eval_client(stub.base_url))
        assert all(trace.agent.trainable for trace in episode.traces)
        config = env_config("needle-rlm", {"tools": False}, max_concurrent_agents=1, **parts)
        (episode,) = await play(config, eval_client(stub.base_url))
    assert not episode.ok
    assert "max_concurrent_agents must be above 1" in episode.errors[0].message
