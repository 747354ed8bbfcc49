"""The engine of a harness: our client on the endpoint that verifiers gives to a rollout, root and sub-LLM alike.

Each request carries an id, by which it is sampled once however often it is sent, and by which its node in the trace is
found: the tokens that the trace recorded become those of our completion.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal

import verifiers.v1 as vf

from rlm_env.llm.base import Sampling, ToolSchema
from rlm_env.llm.openai_chat import OpenAIChat
from rlm_env.messages import Completion, Message

_sent: ContextVar[str] = ContextVar("id of the request that the current task has sent last")


class CallLog:
    """The requests of one rollout: their ids, who caused whom, and where the trace has them."""

    def __init__(self, trace: vf.Trace) -> None:
        self._trace = trace
        self._run = uuid.uuid4().hex[:8]
        self._roots: list[str] = []
        self._subs: list[tuple[str, int]] = []
        """Id, and how many requests the root had made."""
        self._nodes: dict[str, int] = {}
        self._read = 0
        """How many of the trace's calls are in `_nodes`."""

    def begin(self, role: Literal["root", "sub"]) -> str:
        """The id of a new request."""
        if role == "root":
            self._roots.append(f"{self._run}-root-{len(self._roots)}")
            return self._roots[-1]
        self._subs.append((f"{self._run}-sub-{len(self._subs)}", len(self._roots)))
        return self._subs[-1][0]

    def node(self, request_id: str) -> int | None:
        """Index of the message that answered a request; None for one that failed."""
        calls = self._trace.calls
        for call in calls[self._read :]:
            label = getattr(call, "acp", None)  # the commit of verifiers that prime-rl pins has none
            if label is not None and call.node is not None:
                self._nodes[label.request_id] = call.node
        self._read = len(calls)
        return self._nodes.get(request_id)

    def fill_tokens(self, completion: Completion, request_id: str) -> None:
        """Gives a completion the ids and log-probabilities in the trace, where it has them (client `train`)."""
        at = self.node(request_id)
        nodes = self._trace.nodes
        if at is None or not nodes[at].token_ids:
            return
        last = nodes[at]
        path: list[vf.MessageNode] = []
        parent = last.parent
        while parent is not None:
            path.append(nodes[parent])
            parent = nodes[parent].parent
        sampled = last.mask.index(True) if True in last.mask else len(last.mask)
        before = [token for node in reversed(path) for token in node.token_ids]
        completion.prompt_ids = before + last.token_ids[:sampled]
        completion.completion_ids = last.token_ids[sampled:]
        completion.logprobs = list(last.logprobs)

    def edges(self) -> list[vf.SemanticEdge]:
        """From each root turn to the sub-calls of its code, and from these to the turn that read their answers."""
        edges: dict[tuple[int, int, str], vf.SemanticEdge] = {}
        for sub, made in self._subs:
            for source, target, kind in (
                (self._root(made - 1), sub, "subagent_call"),
                (sub, self._root(made), "subagent_return"),
            ):
                ends = source and self.node(source), target and self.node(target)
                if ends[0] is None or ends[1] is None or ends[0] == ends[1]:
                    continue
                edge = vf.SemanticEdge(source_request_id=str(source), target_request_id=str(target), type=kind)
                edges.setdefault((int(ends[0]), int(ends[1]), kind), edge)
        return list(edges.values())

    def _root(self, index: int) -> str | None:
        return self._roots[index] if 0 <= index < len(self._roots) else None


class InterceptedChat(OpenAIChat):
    """An `OpenAIChat` whose requests are logged. Other options as there."""

    def __init__(self, role: Literal["root", "sub"], log: CallLog, model: str, base_url: str, **options: Any) -> None:
        super().__init__(model, base_url, **options)
        self._role: Literal["root", "sub"] = role
        self._log = log

    def request_headers(self) -> Mapping[str, str]:
        request_id = self._log.begin(self._role)
        _sent.set(request_id)
        return {"Idempotency-Key": request_id, "X-ACP-Model-Request-ID": request_id}

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        completion = await super().complete(messages, tools, sampling)
        self._log.fill_tokens(completion, _sent.get())
        return completion
