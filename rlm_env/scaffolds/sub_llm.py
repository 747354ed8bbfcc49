"""`llm_batch` on the host: from the prompts of a cell to answers, under the rollout's budget, each call recorded.

Answers that a failed cell has paid for are kept here too. The channel to the REPL is in `repl/`, the tool loop in
`conversation.py`, running tools in `tools/box.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlm_env.events import SubCallEnded, SubCallStarted
from rlm_env.llm.base import ContextOverflow, EngineUnavailable, LLMError, Request, ToolsRefused
from rlm_env.messages import UNREADABLE_CALL, Completion, Message
from rlm_env.repl import SubError
from rlm_env.replies import visible_text
from rlm_env.rollout import StopReason, SubCall, SubTurn
from rlm_env.scaffolds.base import Episode
from rlm_env.scaffolds.conversation import ToolConversation, with_tool_protocol
from rlm_env.tools.box import ToolBox

ALL_THOUGHT = "its token limit was used up before it had answered"
ONLY_THOUGHT = "it ended its thoughts without an answer"
NO_ANSWER = "it called tools instead of giving its answer"
UNREADABLE = "its tool call could not be read"
STOPPED = "it was stopped before it had answered"

_REFUSALS = {
    StopReason.SUB_CALLS: "the budget of sub-LLM calls is used up",
    StopReason.SUB_TOKENS: "the budget of sub-LLM tokens is used up",
    StopReason.WALL_TIME: "the time of the task is used up",
}


_MESSAGE_KEYS = ("role", "content", "name")
"""What is kept of a message that a cell wrote: texts, which every record and endpoint takes."""


@dataclass(slots=True)
class _Item:
    """A prompt of a batch that is being answered."""

    index: int
    asked: list[Message]
    """The chat that the cell gave."""
    chat: ToolConversation
    call: SubCall
    shortened: bool = False
    """Its last tool results were taken out because they outgrew the window."""


class SubLLM:
    """The sub-LLM of one rollout; calling it answers one `llm_batch`.

    Where it may call the environment's tools, a sub-LLM does so in up to `max_tool_turns` replies, then it is asked for
    its answer. All conversations of a batch advance in rounds, each round one batch of the engine, and every reply
    counts as a sub-call of the budget. A conversation that outgrows the window loses its last tool results and is asked
    for its answer.

    Answers that a failed cell has paid for are kept for the next cell: its identical prompts are answered from
    them, each answer once, in the order in which they came. They are dropped as soon as a cell succeeds; equal
    prompts are independent samples otherwise.
    """

    def __init__(self, episode: Episode) -> None:
        self.calls: list[SubCall] = []
        self.batches = 0
        self.reused = 0
        self.unavailable: EngineUnavailable | None = None
        """Set when the engine has died: the rollout cannot go on."""
        self._episode = episode
        self._llm = episode.sub
        self._budget = episode.budget
        self._sampling = episode.config.sub
        self._system = episode.config.sub_system_prompt
        self._tools = episode.tools if "sub" in episode.tool_users else ToolBox(())
        self._max_tool_turns = episode.config.max_tool_turns
        self._turn = 0
        self._paid: list[tuple[list[Message], str]] = []
        """Prompts of the cell that runs, and their answers."""
        self._kept: dict[str, deque[str]] = defaultdict(deque)

    def begin_cell(self, turn: int) -> None:
        """Call before each cell, with the index of the root turn that it belongs to."""
        self._turn = turn

    def end_cell(self, failed: bool) -> None:
        """Call after each cell: answers are kept for the next one only if this one failed."""
        if failed:
            for messages, answer in self._paid:
                self._kept[_key(messages)].append(answer)
        else:
            self._kept.clear()
        self._paid.clear()

    async def __call__(self, prompts: list[Any]) -> list[str | SubError]:
        """One answer or SubError per prompt, in order. Raises EngineUnavailable when the engine has died."""
        if self.unavailable is not None:
            raise self.unavailable
        batch, self.batches = self.batches, self.batches + 1
        results: list[str | SubError] = [SubError(STOPPED)] * len(prompts)
        waiting: list[tuple[int, list[Message]]] = []
        for index, item in enumerate(prompts):
            try:
                messages = self._messages(item)
            except ValueError as error:
                results[index] = SubError(str(error))
                continue
            kept = self._kept[_key(messages)] if self._kept else None
            if kept:
                results[index] = answer = kept.popleft()
                self._paid.append((messages, answer))
                self.reused += 1
            else:
                waiting.append((index, messages))
        granted = self._budget.grant_sub_calls(len(waiting)) if waiting else 0
        for index, _ in waiting[granted:]:
            results[index] = SubError(self._refusal())
        items: list[_Item] = []
        events = self._episode.events
        native = self._llm.supports_tools
        for index, asked in waiting[:granted]:
            messages = with_tool_protocol(asked, self._tools, native=native)
            call = SubCall(len(self.calls), self._turn, batch, messages, error=STOPPED)
            self.calls.append(call)
            items.append(_Item(index, asked, ToolConversation(list(messages), self._tools, native), call))
            if events:
                events.emit(SubCallStarted, call=call)
        await self._ask(items, results)
        return results

    async def _ask(self, items: list[_Item], results: list[str | SubError]) -> None:
        """Rounds until every item has its answer or its error."""
        start = time.monotonic()
        while items:
            answers = await self._complete(items)
            going_on = []
            for item, answer in zip(items, answers, strict=True):
                item.call.seconds = time.monotonic() - start
                if self._record_reply(item, answer):
                    going_on.append(item)
                else:
                    results[item.index] = self._end(item.call)
            if self.unavailable is not None:
                raise self.unavailable
            await asyncio.gather(*(self._use_tools(item) for item in going_on if not item.chat.closing))
            granted = self._budget.grant_sub_calls(len(going_on)) if going_on else 0
            for item in going_on[granted:]:
                item.call.error = self._refusal()
                results[item.index] = self._end(item.call)
            items = going_on[:granted]
        if self._episode.events:
            self._episode.tell_spent()

    def _end(self, call: SubCall) -> str | SubError:
        """The result of a call that goes on no further."""
        if self._episode.events:
            self._episode.events.emit(SubCallEnded, call=call)
        return SubError(call.error) if call.error else visible_text(call)

    async def _complete(self, items: Sequence[_Item]) -> list[Completion | LLMError]:
        """A reply or an error for each item. Where the engine turns out to take no tools, it is asked again in the text
        protocol."""
        requests = [Request(item.chat.messages, item.chat.offered, self._sampling) for item in items]
        answers = await self._llm.complete_many(requests)
        refused = [i for i, answer in enumerate(answers) if isinstance(answer, ToolsRefused) and items[i].chat.native]
        if refused:
            for item in (items[i] for i in refused):
                item.chat.ask_for_text_calls()
                if not item.call.tool_turns:
                    item.call.messages = [*item.chat.messages]
            for i, answer in zip(refused, await self._complete([items[i] for i in refused]), strict=True):
                answers[i] = answer
        return answers

    def _record_reply(self, item: _Item, answer: Completion | LLMError) -> bool:
        """Records a reply. Returns True where the conversation goes on."""
        call, chat = item.call, item.chat
        if isinstance(answer, Completion):
            self._budget.sub += answer.usage
            call.usage += answer.usage
            tool_calls = chat.calls(answer)
            if tool_calls and not chat.closing:
                call.tool_turns.append(SubTurn.from_completion(answer))
                chat.add(answer)
                return True
            call.take(answer)
            call.error = NO_ANSWER if tool_calls and not (chat.native and answer.text.strip()) else None
            if answer.finish_reason == UNREADABLE_CALL:
                call.error = UNREADABLE
            visible = visible_text(answer)
            if call.error is None and not visible.strip():
                if answer.finish_reason == "length":
                    call.error = ALL_THOUGHT
                elif answer.text.strip() or answer.reasoning:
                    call.error = ONLY_THOUGHT
            if call.error is None:
                self._paid.append((item.asked, visible))
            return False
        if isinstance(answer, ContextOverflow) and call.tool_turns and not item.shortened:
            chat.drop_last_results(call.tool_turns[-1])
            chat.ask_for_answer()
            item.shortened = True
            return True
        if answer.usage is not None:
            self._budget.sub += answer.usage
            call.usage += answer.usage
        call.error = _reason(answer)
        if isinstance(answer, EngineUnavailable):
            self.unavailable = answer
        return False

    async def _use_tools(self, item: _Item) -> None:
        """Runs the tools that a reply calls; after the last allowed turn, asks for the answer."""
        await item.chat.run_calls(item.call.tool_turns[-1])
        if len(item.call.tool_turns) >= self._max_tool_turns:
            item.chat.ask_for_answer()

    def _refusal(self) -> str:
        """Why the budget has just refused a call."""
        return _REFUSALS[self._budget.refused or StopReason.SUB_CALLS]

    def _messages(self, item: Any) -> list[Message]:
        """The chat of one item: a str, {"prompt": str} or {"messages": [...]}. Raises ValueError for anything else."""
        if isinstance(item, str):
            messages: list[Message] = [{"role": "user", "content": item}]
        elif isinstance(item, dict) and item.keys() == {"prompt"} and isinstance(item["prompt"], str):
            messages = [{"role": "user", "content": item["prompt"]}]
        elif isinstance(item, dict) and item.keys() == {"messages"} and _is_chat(item["messages"]):
            messages = [{key: message[key] for key in _MESSAGE_KEYS if key in message} for message in item["messages"]]
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
            and isinstance(m.get("name", ""), str)
            for m in messages
        )
    )


def _key(messages: list[Message]) -> str:
    """Equal for equal prompts."""
    return json.dumps(messages, sort_keys=True)


def _reason(error: LLMError) -> str:
    """Why a sub-call failed, as the code in the REPL sees it."""
    if isinstance(error, ContextOverflow):
        return f"{error}; give it a shorter piece"
    return str(error)
