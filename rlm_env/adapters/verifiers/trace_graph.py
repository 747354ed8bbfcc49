"""The conversations of a stored rollout as the message graph of a trace: what verifiers would have recorded of it.

Each message is a node once, with the tokens that it adds. A conversation is a path; where a reply's prompt does not
extend the tokens of the path so far, it begins a branch of its own, so that every branch is an exact training sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import verifiers.v1 as vf
from verifiers.v1.graph import message_hash

from rlm_env.messages import Message, Usage
from rlm_env.rollout import Reply, Rollout, SubCall
from rlm_env.tools.box import result_messages

FINISH_REASONS: dict[str | None, Literal["stop", "length", "tool_calls"]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
}
CALL, RETURN = "subagent_call", "subagent_return"
"""Edges from a root turn to the sub-calls of its code, and from these to the turn that read their answers."""


class TraceGraph:
    """Nodes and calls of a trace. Times: a record has durations only, so events follow one another."""

    def __init__(self, started: float) -> None:
        """`started`: Unix time."""
        self.nodes: list[vf.MessageNode] = []
        self.calls: list[vf.ModelCall] = []
        self.at = started
        self._prompts: dict[tuple[int | None, str], int] = {}
        """Parent and message -> node, of messages that nobody sampled."""

    def add_rollout(self, rollout: Rollout, models: tuple[str, str], sampling: tuple[Any, Any]) -> None:
        """Adds all conversations. `models`, `sampling`: those of root and sub-LLM."""
        root, sub = zip(models, sampling, strict=True)
        ends = [index for index, message in enumerate(rollout.messages) if message["role"] == "assistant"]
        calls: dict[int, list[SubCall]] = {}
        for call in rollout.sub_calls:
            calls.setdefault(call.root_turn, []).append(call)
        path: list[int] = []
        asked: list[int] = []
        for index, turn in enumerate(rollout.turns):
            end = ends[index] if index < len(ends) else len(rollout.messages)
            if turn.prompt:
                path = []
            path = self._add(path, turn.prompt or rollout.messages[:end], turn)
            self._call(path[-1], turn, root, turn.usage, turn.root_seconds)
            self._link(asked, path[-1:], RETURN)
            asked = [node for call in calls.pop(index, ()) for node in self._sub_call(call, sub)]
            self._link(path[-1:], asked, CALL)
            self.at += turn.code_seconds + turn.sub_seconds
        for rest in calls.values():  # notes that belong to no turn
            for call in rest:
                self._sub_call(call, sub)

    def _sub_call(self, call: SubCall, engine: tuple[str, Any]) -> list[int]:
        """Adds one sub-call; returns the nodes of its replies. One that failed is a call without a node."""
        path: list[int] = []
        sampled: list[int] = []
        prompt = list(call.messages)
        left = Usage(call.usage.prompt_tokens, call.usage.completion_tokens, call.usage.cached_tokens)
        for turn in call.tool_turns:
            path = self._add(path, prompt, turn)
            sampled.append(path[-1])
            self._call(path[-1], turn, engine, turn.usage)
            left.prompt_tokens -= turn.usage.prompt_tokens
            left.completion_tokens -= turn.usage.completion_tokens
            left.cached_tokens -= turn.usage.cached_tokens
            prompt += [_reply_message(turn), *result_messages(turn.tool_results, native=bool(turn.tool_calls))]
        if len(call.replies) > len(call.tool_turns):
            path = self._add(path, prompt, call)
            sampled.append(path[-1])
            self._call(path[-1], call, engine, left, call.seconds, call.error)
        else:
            self._call(None, call, engine, left, call.seconds, call.error)
        return sampled

    def _add(self, path: Sequence[int], prompt: Sequence[Message], reply: Reply) -> list[int]:
        """Adds a reply behind its prompt, whose first messages are the nodes of `path`; returns the longer path."""
        before = reply.prompt_ids or []
        path, covered = self._shared(path, before if reply.completion_ids else None)
        for message in prompt[len(path) :]:
            path.append(self._prompt_node(path[-1] if path else None, trace_message(message)))
        sampled = reply.completion_ids or []
        scaffold = before[covered:] if sampled else []
        node = vf.MessageNode(
            parent=path[-1] if path else None,
            message=trace_message(_reply_message(reply)),
            sampled=True,
            timestamp=self.at,
            token_ids=[*scaffold, *sampled],
            mask=[False] * len(scaffold) + [True] * len(sampled),
            logprobs=(reply.logprobs or []) if sampled else [],
        )
        self.nodes.append(node)
        return [*path, len(self.nodes) - 1]

    def _shared(self, path: Sequence[int], prompt_ids: list[int] | None) -> tuple[list[int], int]:
        """The part of a path whose tokens begin the prompt, and how many they are. Without ids the whole path."""
        covered = 0
        if prompt_ids is None:
            return [*path], 0
        for place, node in enumerate(path):
            own = self.nodes[node].token_ids
            if prompt_ids[covered : covered + len(own)] != own:
                return [*path[:place]], covered
            covered += len(own)
        return [*path], covered

    def _prompt_node(self, parent: int | None, message: vf.Message) -> int:
        """The node of a message that nobody sampled; equal beginnings of conversations share theirs."""
        key = parent, message_hash(message)
        if key not in self._prompts:
            self._prompts[key] = len(self.nodes)
            self.nodes.append(vf.MessageNode(parent=parent, message=message, timestamp=self.at))
        return self._prompts[key]

    def _call(
        self,
        node: int | None,
        reply: Reply,
        engine: tuple[str, Any],
        usage: Usage,
        seconds: float = 0.0,
        error: str | None = None,
    ) -> None:
        model, sampling = engine
        self.calls.append(
            vf.ModelCall(
                node=node,
                model=model,
                sampling=sampling,
                endpoint="/chat/completions",
                finish_reason=FINISH_REASONS.get(reply.finish_reason) if node is not None else None,
                usage=_usage(usage) if node is not None or usage.prompt_tokens else None,
                time=vf.TimeSpan(start=self.at, end=self.at + seconds),
                error=vf.Error(type="ProviderError", message=error) if error is not None else None,
            )
        )
        if isinstance(reply, SubCall):
            return  # those of a batch run side by side, in the time of their root turn
        self.at += seconds

    def _link(self, sources: Sequence[int], targets: Sequence[int], kind: str) -> None:
        for target in targets:
            self.nodes[target].semantic_parents += [vf.ParentLink(node=node, type=kind) for node in sources]


def trace_message(message: Message) -> vf.Message:
    """A chat message in the types of verifiers, whatever an endpoint or a model has made of it."""
    role, content = message["role"], _text(message.get("content"))
    if role == "assistant":
        thoughts = message.get("reasoning_content")
        calls = [_tool_call(call, place) for place, call in enumerate(message.get("tool_calls") or ())]
        return vf.AssistantMessage(
            content=content or None,
            reasoning_content=thoughts or None,
            tool_calls=calls or None,
        )
    if role == "tool":
        name = message.get("name")
        return vf.ToolMessage(
            tool_call_id=_text(message.get("tool_call_id")), content=content, name=_text(name) if name else None
        )
    return vf.SystemMessage(content=content) if role == "system" else vf.UserMessage(content=content)


def _reply_message(reply: Reply) -> Message:
    return {
        "role": "assistant",
        "content": reply.text,
        "reasoning_content": reply.reasoning,
        "tool_calls": reply.tool_calls,
    }


def _tool_call(call: dict[str, Any], place: int) -> vf.ToolCall:
    function = call.get("function") or {}
    name, arguments = _text(function.get("name")), _text(function.get("arguments"))
    return vf.ToolCall(id=_text(call.get("id")) or f"call_{place}", name=name, arguments=arguments)


def _text(value: Any) -> str:
    """Text as it is; of a list of parts their texts."""
    if isinstance(value, list):
        value = "\n".join(str(part.get("text", "")) for part in value if isinstance(part, dict))
    return "" if value is None else str(value)


def _usage(usage: Usage) -> vf.Usage:
    fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
    return vf.Usage(
        prompt_tokens=fresh,
        completion_tokens=max(0, usage.completion_tokens),
        cached_input_tokens=usage.cached_tokens if usage.cached_tokens > 0 else None,
    )
