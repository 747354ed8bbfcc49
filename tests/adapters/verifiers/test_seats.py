"""Root and sub-LLMs in seats of their own: another model for sub-calls, and training the root alone."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")

from pydantic import ValidationError
from verifiers.v1.cli.eval.main import main as eval_main
from verifiers.v1.utils.loaders import resolve_env_config

from rlm_env.adapters.verifiers.harness import RLMHarnessConfig
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


@pytest.mark.parametrize("seat", ["agent", "sub"])
def test_settings_of_a_harness_need_no_id(seat):
    """As `--env.agent.harness.scaffold rlm-tips` gives them; on a command line, tables are JSON."""
    harness = {"scaffold": "rlm-tips", "rollout": '{"max_turns": 3}'}
    config = resolve_env_config({"taskset": {"id": "needle-rlm"}, seat: {"harness": harness}})
    found = getattr(config, seat).harness
    assert (type(found), found.id, found.rollout) == (RLMHarnessConfig, "needle-rlm", {"max_turns": 3})
    other = resolve_env_config({"taskset": {"id": "needle-rlm"}, seat: {"harness": {"id": "bash"}}})
    assert getattr(other, seat).harness.id == "bash"


@pytest.mark.parametrize(
    ("taskset", "harness", "said"),
    [
        ({}, {"scaffold": "rlmm"}, "unknown scaffold 'rlmm'"),
        ({}, {"rollout": '{"max_turnz": 3}'}, "max_turnz"),
        ({}, {"rollout": "max_turns=3"}, "rollout"),
        ({"options": {"profil": "tiny"}}, {}, "no option 'profil'; did you mean 'profile'"),
        ({"options": {"seed": 3}}, {}, "the seed is no option"),
        ({"environment": "needle-rlmm"}, {}, "no environment 'needle-rlmm'; did you mean 'needle-rlm'"),
    ],
)
def test_mistakes_are_refused_while_the_configuration_is_read(taskset, harness, said):
    with pytest.raises(ValidationError, match=said):
        resolve_env_config({"taskset": {"id": "needle-rlm", **taskset}, "agent": {"harness": harness}})


def test_the_options_of_the_page_are_taken(tmp_path, monkeypatch):
    """Every option in the table of docs/prime_rl.md, by `vf-eval` itself."""
    page = (Path(__file__).parents[3] / "docs" / "prime_rl.md").read_text("utf-8")
    table = page.partition("| option | |\n")[2].partition("\n\n")[0]
    named = re.findall(r"`(--env[\w.-]+|\.\w+)`", table)
    options = [f"--env.taskset{name}" if name.startswith(".") else name for name in named]
    values = {"split": "train", "seed": "3", "options": '{"profile": "tiny"}', "num_tasks": "5"}
    values |= {"environment": "needle-rlm", "scaffold": "rlm-tips", "rollout": '{"max_turns": 3}', "tools": "false"}
    values |= {"profile": "tiny-rlm", "model": "small", "temperature": "0.2"}
    given = [part for name in options for part in (name, values.get(name.rpartition(".")[2], "true"))]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vf-eval"])
    with contextlib.suppress(SystemExit):
        eval_main(["needle-rlm", "-m", "large", "--no-push", "--no-rich", "--dry-run", *given])
    [written] = tmp_path.glob("outputs/*/configs/resolved/eval.json")
    env = json.loads(written.read_text())["env"]
    assert (env["separate_sub"], env["train_sub"], env["sub"]["model"]) == (True, True, "small")
    assert env["sub"]["sampling"]["temperature"] == 0.2
    assert env["agent"]["harness"]["rollout"] == {"max_turns": 3}
    assert (env["taskset"]["num_tasks"], env["taskset"]["options"]) == (5, {"profile": "tiny"})
