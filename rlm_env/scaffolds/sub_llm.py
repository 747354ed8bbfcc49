"""`llm_batch` on the host: from the prompts of a cell to answers, under the rollout's budget, all on record.

Covered: reading the items, budget, the batch itself, turns with tools, what was paid for and may be used again. Not
covered: the channel to the REPL (`repl/`), transports (`llm/`), what tools are and how they run (`tools.py`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

from rlm_env.llm.base import LLM, ContextOverflow, EngineUnavailable, LLMError, Request, Sampling, ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.protocol import strip_thinking
from rlm_env.repl import SubError
from rlm_env.rollout import StopReason, SubCall, SubTurn
from rlm_env.scaffolds.budget import Budget
from rlm_env.tools.box import ToolBox, read_calls, tell

FINAL = "You cannot call tools any more. Give your final answer now, from what you have found."
NO_ROOM = "the result did not fit into your context window"
ALL_THOUGHT = "its token limit was used up before it had answered"
NO_ANSWER = "it called tools instead of giving its answer"
STOPPED = "it was stopped before it had answered"

_REFUSALS = {
    StopReason.SUB_CALLS: "the budget of sub-LLM calls is used up",
    StopReason.SUB_TOKENS: "the budget of sub-LLM tokens is used up",
    StopReason.WALL_TIME: "the time of the task is used up",
}


@dataclass(slots=True)
class _Item:
    """A prompt of a batch that is being answered."""

    index: int
    key: str
    messages: list[Message]
    """The conversation so far."""
    call: SubCall
    told_at: int = 0
    """Where the messages about the last tool calls begin."""
    final: bool = False
    """Whether it has been asked for its answer, without tools."""
    shortened: bool = False
    """Whether its last results were taken out for want of room."""

    def ask_for_answer(self) -> None:
        self.final = True
        last = self.messages[-1]
        if last["role"] == "user":  # some chat templates take no two user messages in a row
            self.messages[-1] = {**last, "content": f"{last['content']}\n\n{FINAL}"}
        else:
            self.messages.append({"role": "user", "content": FINAL})


class SubLLM:
    """The sub-LLM of one rollout; calling it answers one `llm_batch`.

    With `tools` a sub-LLM may call them in up to `max_tool_turns` replies, side by side where it makes several calls;
    after that it is asked for its answer once more, without tools. All conversations of a batch go on in rounds, each
    round one batch of the engine, and every reply counts as a sub-call of the budget. A conversation that outgrows
    the window loses its last results and is asked for its answer. Engines without native tool calls get the text
    protocol of `tools.py`.

    Answers that a failed cell has paid for are kept for the next cell: its identical prompts are answered from
    them, each answer once, in the order in which they came. They are dropped as soon as a cell succeeds; equal
    prompts are independent samples otherwise.
    """

    def __init__(
        self,
        llm: LLM,
        sampling: Sampling,
        budget: Budget,
        system_prompt: str | None = None,
        tools: ToolBox | None = None,
        max_tool_turns: int = 8,
    ) -> None:
        self.calls: list[SubCall] = []
        self.batches = 0
        self.reused = 0
        self.unavailable: EngineUnavailable | None = None
        """Set when the engine has died: the rollout cannot go on."""
        self._llm = llm
        self._sampling = sampling
        self._budget = budget
        self._system = system_prompt
        self._tools = tools
        self._max_tool_turns = max_tool_turns
        self._turn = 0
        self._paid: dict[str, deque[str]] = defaultdict(deque)
        self._kept: dict[str, deque[str]] = defaultdict(deque)

    def begin_cell(self, turn: int) -> None:
        """To be called before each cell, with the index of the root turn that it belongs to."""
        self._turn = turn

    def end_cell(self, failed: bool) -> None:
        """To be called after each cell: answers are kept for the next one only if this one failed."""
        if failed:
            for key, answers in self._paid.items():
                self._kept[key].extend(answers)
        else:
            self._kept.clear()
        self._paid.clear()

    async def __call__(self, prompts: list[Any]) -> list[str | SubError]:
        """One answer or SubError per prompt, in order. Raises EngineUnavailable when the engine has died."""
        if self.unavailable is not None:
            raise self.unavailable
        batch, self.batches = self.batches, self.batches + 1
        results: list[str | SubError | None] = [None] * len(prompts)
        waiting: list[tuple[int, str, list[Message]]] = []
        for index, item in enumerate(prompts):
            try:
                messages = self._messages(item)
            except ValueError as error:
                results[index] = SubError(str(error))
                continue
            key = json.dumps(messages, sort_keys=True)
            if self._kept[key]:
                results[index] = answer = self._kept[key].popleft()
                self._paid[key].append(answer)
                self.reused += 1
            else:
                waiting.append((index, key, messages))
        granted = self._budget.grant_sub_calls(len(waiting)) if waiting else 0
        for index, _, _ in waiting[granted:]:
            results[index] = SubError(_REFUSALS[self._budget.refused])
        items: list[_Item] = []
        for index, key, messages in waiting[:granted]:
            call = SubCall(len(self.calls), self._turn, batch, self._with_tools(messages), error=STOPPED)
            self.calls.append(call)
            items.append(_Item(index, key, list(call.messages), call))
        await self._ask(items, results)
        return results

    async def _ask(self, items: list[_Item], results: list[str | SubError | None]) -> None:
        """Rounds until every item has its answer or its error."""
        start = time.monotonic()
        while items:
            requests = [Request(item.messages, self._schemas(item), self._sampling) for item in items]
            answers = await self._llm.complete_many(requests)
            going_on = []
            for item, answer in zip(items, answers, strict=True):
                item.call.seconds = time.monotonic() - start
                if self._take(item, answer):
                    going_on.append(item)
                else:
                    results[item.index] = SubError(item.call.error) if item.call.error else _told(item.call.text)
            if self.unavailable is not None:
                raise self.unavailable
            await asyncio.gather(*(self._use_tools(item) for item in going_on if not item.final))
            granted = self._budget.grant_sub_calls(len(going_on)) if going_on else 0
            for item in going_on[granted:]:
                item.call.error = _REFUSALS[self._budget.refused]
                results[item.index] = SubError(item.call.error)
            items = going_on[:granted]

    def _take(self, item: _Item, answer: Completion | LLMError) -> bool:
        """Records a reply; whether the conversation goes on."""
        call = item.call
        if isinstance(answer, Completion):
            self._budget.sub += answer.usage
            call.usage += answer.usage
            tool_calls = read_calls(answer, native=self._llm.supports_tools) if self._tools else []
            if tool_calls and not item.final:
                call.tool_turns.append(SubTurn.from_completion(answer))
                item.messages.append(answer.message())
                return True
            call.take(answer)
            call.error = NO_ANSWER if tool_calls and not (self._llm.supports_tools and answer.text.strip()) else None
            if call.error is None and answer.finish_reason == "length" and not _told(answer.text):
                call.error = ALL_THOUGHT
            if call.error is None:
                self._paid[item.key].append(_told(answer.text))
            return False
        if isinstance(answer, ContextOverflow) and call.tool_turns and not item.shortened:
            self._make_room(item)
            return True
        call.error = _reason(answer)
        if isinstance(answer, EngineUnavailable):
            self.unavailable = answer
        return False

    async def _use_tools(self, item: _Item) -> None:
        native = self._llm.supports_tools
        turn = item.call.tool_turns[-1]
        turn.tool_results = await self._tools.run(read_calls(turn, native=native))
        item.told_at = len(item.messages)
        item.messages += tell(turn.tool_results, native=native)
        if len(item.call.tool_turns) >= self._max_tool_turns:
            item.ask_for_answer()

    def _make_room(self, item: _Item) -> None:
        """Takes the last results out of a conversation that has outgrown the window, and asks for its answer."""
        results = item.call.tool_turns[-1].tool_results
        for result in results:
            result.error, result.output = NO_ROOM, ""
        item.messages[item.told_at :] = tell(results, native=self._llm.supports_tools)
        item.shortened = True
        item.ask_for_answer()

    def _schemas(self, item: _Item) -> list[ToolSchema] | None:
        return self._tools.schemas if self._tools and self._llm.supports_tools and not item.final else None

    def _with_tools(self, messages: list[Message]) -> list[Message]:
        """The chat with the text protocol in its system message, where the engine needs it."""
        if not self._tools or self._llm.supports_tools:
            return messages
        if messages[0]["role"] != "system":
            return [{"role": "system", "content": self._tools.instructions()}, *messages]
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{self._tools.instructions()}"}
        return [first, *messages[1:]]

    def _messages(self, item: Any) -> list[Message]:
        """The chat of one item: a str, {"prompt": str} or {"messages": [...]}. Raises ValueError saying what it is."""
        if isinstance(item, str):
            messages: list[Message] = [{"role": "user", "content": item}]
        elif isinstance(item, dict) and item.keys() == {"prompt"} and isinstance(item["prompt"], str):
            messages = [{"role": "user", "content": item["prompt"]}]
        elif isinstance(item, dict) and item.keys() == {"messages"} and _is_chat(item["messages"]):
            messages = item["messages"]
        else:
            shape = f"a dict with the keys {sorted(map(str, item))}" if isinstance(item, dict) else type(item).__name__
            raise ValueError(
                'a prompt must be a str, {"prompt": str} or {"messages": [{"role": ..., "content": str}, ...]}, '
                f"this one is {shape}"
            )
        if self._system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self._system}, *messages]
        return messages


def _is_chat(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(
            isinstance(m, dict)
            and m.get("role") in ("system", "user", "assistant")
            and isinstance(m.get("content"), str)
            for m in messages
        )
    )


def _told(text: str) -> str:
    """A reply as the root's code gets it: without thoughts that the engine has not parted from it."""
    return strip_thinking(text).lstrip() if text.lstrip().startswith("<think>") else text


def _reason(error: LLMError) -> str:
    if isinstance(error, ContextOverflow):
        return f"{error}; give it a shorter piece"
    return str(error)
