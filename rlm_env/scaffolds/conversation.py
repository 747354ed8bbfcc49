"""The tool loop of every scaffold: a conversation with an LLM that may call tools before it answers.

One round is: send `messages` with the schemas in `offered`, `add` the reply, and where it calls tools `run_calls`. Who
sends the messages, alone or in a batch, and what ends the rounds is up to the scaffold.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlm_env.llm.base import ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.rollout import SubTurn, Turn
from rlm_env.tools.box import ToolBox, ToolCall, read_calls, result_messages

ASK_FOR_ANSWER = "You cannot call tools any more. Give your final answer now, from what you have found."
RESULT_DROPPED = "the result did not fit into your context window"


@dataclass(slots=True)
class ToolConversation:
    """The messages so far, and the tools on offer until the LLM has been asked for its answer."""

    messages: list[Message]
    tools: ToolBox
    native: bool
    """Tools are called through the engine; otherwise by fenced blocks in the reply."""
    closing: bool = False
    """The LLM has been asked for its answer: tools are not offered any more."""
    _results_start: int = 0
    """Index of the first message with results of the last reply's calls."""

    @property
    def offered(self) -> list[ToolSchema] | None:
        """The tool schemas to send along with the messages."""
        return self.tools.schemas if self.tools and self.native and not self.closing else None

    def calls(self, reply: Completion) -> list[ToolCall]:
        """The tool calls of a reply; empty where there are no tools, or where it is an answer."""
        return read_calls(reply, native=self.native, names=self.tools) if self.tools else []

    def add(self, reply: Completion) -> None:
        """Appends a reply of the LLM."""
        self.messages.append(reply.message())
        self._results_start = len(self.messages)

    async def run_calls(self, record: Turn | SubTurn) -> list[Message]:
        """Runs the tool calls of the last reply, whose record is given. The results go into the record and, as the
        messages that are returned, into the conversation."""
        record.tool_results = await self.tools.run(read_calls(record, native=self.native, names=self.tools))
        results = result_messages(record.tool_results, native=self._called_natively(record))
        self.messages += results
        return results

    def ask_for_text_calls(self) -> None:
        """Goes on in the text protocol, with an engine that turned out to take no tools."""
        self.messages = with_tool_protocol(self.messages, self.tools, native=False)
        self.native = False

    def ask_for_answer(self) -> None:
        """Tells the LLM to answer now, without tools."""
        self.closing = True
        last = self.messages[-1]
        if last["role"] == "user":  # some chat templates take no two user messages in a row
            self.messages[-1] = {**last, "content": f"{last['content']}\n\n{ASK_FOR_ANSWER}"}
        else:
            self.messages.append({"role": "user", "content": ASK_FOR_ANSWER})

    def drop_last_results(self, record: Turn | SubTurn) -> None:
        """Takes the results of the last calls out again, in a conversation that has outgrown the window."""
        for result in record.tool_results:
            result.error, result.output = RESULT_DROPPED, ""
        self.messages[self._results_start :] = result_messages(
            record.tool_results, native=self._called_natively(record)
        )

    def _called_natively(self, record: Turn | SubTurn) -> bool:
        """False where the calls stand in the text, also those of an engine that could parse them."""
        return self.native and bool(record.tool_calls)


def with_tool_protocol(messages: list[Message], tools: ToolBox, *, native: bool) -> list[Message]:
    """The chat with the text protocol for tools in its system message, where the engine has no native tool calls."""
    if not tools or native:
        return messages
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": tools.instructions()}, *messages]
    first = {**messages[0], "content": f"{messages[0]['content']}\n\n{tools.instructions()}"}
    return [first, *messages[1:]]
