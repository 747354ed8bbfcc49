"""Running the tool calls of a reply: on the host (never in the REPL), side by side, under a time limit.

With an engine without native tool calls (`LLM.supports_tools` is False), calls are fenced blocks labeled `tool`, with
one JSON object each, and their results come back as one user message. Schemas are in `schema.py`, the tool loop is in
`scaffolds/conversation.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlm_env.llm.base import ToolSchema
from rlm_env.messages import Completion, Message
from rlm_env.repl import shorten
from rlm_env.repl.bounds import first_line
from rlm_env.replies import text_calls, visible_text
from rlm_env.rollout import Rollout, SubTurn, ToolResult, Turn
from rlm_env.tools.schema import Tool

MAX_CALLS = 16
"""Tool calls of one reply that are run; further ones get an error as their result."""
ERROR_CHARS = 300
"""Characters of an error's text that the model sees."""
ToolUser = Literal["root", "sub"]

METRICS = ("tool_calls", "tool_calls_failed", "tool_seconds")
"""Each is counted over all tools and for every tool (`tool_calls_NAME`)."""

_FENCE = re.compile(r"^[ \t]*```[ \t]*tool(?:_call)?[ \t]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_TAG = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it."""

    name: str
    arguments: Any
    """The model's text, or in the text protocol the parsed value."""
    id: str | None = None
    """None in the text protocol."""


class ToolBox:
    """The tools of one rollout. Running a call never raises: whatever goes wrong becomes its result.

    `timeout`: seconds for one call, not counting the wait for a free slot. A sync function that does not return in
    time goes on in its daemon thread, and its result is dropped. `max_chars`: characters of a result that the model
    sees. `concurrency`: calls in flight at a time.
    """

    def __init__(
        self,
        tools: Sequence[Tool | Callable[..., Any]],
        timeout: float = 60.0,
        max_chars: int = 8192,
        concurrency: int = 32,
    ) -> None:
        self.tools = [tool if isinstance(tool, Tool) else Tool(tool) for tool in tools]
        self.timeout = timeout
        self.max_chars = max_chars
        self._by_name = {tool.name: tool for tool in self.tools}
        if len(self._by_name) < len(self.tools):
            raise ValueError(f"two tools have the same name: {', '.join(sorted(tool.name for tool in self.tools))}")
        self._slots = asyncio.Semaphore(concurrency)
        self._counts: dict[str, defaultdict[str, float]] = {key: defaultdict(int) for key in METRICS}

    def __bool__(self) -> bool:
        return bool(self.tools)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def schemas(self) -> list[ToolSchema]:
        """The schemas for an engine with native tool calls."""
        return [tool.schema for tool in self.tools]

    def listing(self) -> str:
        """One line per tool with its name and purpose, for a model that does not call them itself."""
        return "\n".join(f"- {tool.name}: {tool.summary}" for tool in self.tools)

    def instructions(self) -> str:
        """The text protocol, for a model whose engine has no native tool calls."""
        tools = "\n".join(f"- {tool.signature}: {' '.join(tool.description.split())}" for tool in self.tools)
        return (
            "You have tools. To call one, write a block with one JSON object:\n\n"
            '```tool\n{"name": "the tool\'s name", "arguments": {"the argument\'s name": "its value"}}\n```\n\n'
            "Several blocks run at the same time. Stop after them: you are told the results and go on. A reply "
            f"without a block is your answer.\n\nTools:\n{tools}"
        )

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """One result per call, in order; they run side by side."""
        return list(await asyncio.gather(*(self._run(call, index) for index, call in enumerate(calls))))

    def metrics(self) -> dict[str, float]:
        """Calls, failed calls and seconds, in total and by tool; calls of unknown tools count in the total only."""
        found: dict[str, float] = {}
        for key, counts in self._counts.items():
            found[key] = sum(counts.values())
            found |= {f"{key}_{name}": counts[name] for name in self._by_name}
        return found

    async def _run(self, call: ToolCall, index: int) -> ToolResult:
        """Validates and runs one call, and counts it."""
        tool = self._by_name.get(call.name)
        text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)
        result = ToolResult(call.name, text, id=call.id)
        try:
            if index >= MAX_CALLS:
                raise ValueError(f"only the first {MAX_CALLS} calls of a reply are run")
            if tool is None:
                raise ValueError(f"there is no tool {call.name!r}, only {', '.join(self._by_name)}")
            arguments = tool.arguments(call.arguments)
        except ValueError as error:
            result.error = first_line(str(error), ERROR_CHARS)
        else:
            async with self._slots:
                start = time.monotonic()
                await self._call(tool, arguments, result)
                result.seconds = time.monotonic() - start
        result.output = shorten(result.output, (tool and tool.max_chars) or self.max_chars)
        for key, amount in zip(METRICS, (1, result.error is not None, result.seconds), strict=True):
            self._counts[key][call.name if tool else ""] += amount
        return result

    async def _call(self, tool: Tool, arguments: dict[str, Any], result: ToolResult) -> None:
        """Runs a function under its time limit; its result or error goes into `result`."""
        limit = tool.timeout or self.timeout
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                result.output = _text(await _invoke(tool.function, arguments))
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            result.error = "it was cancelled"
        except TimeoutError as error:
            result.error = (
                f"it took longer than {limit:g} s"
                if timer.expired()
                else first_line(f"TimeoutError: {error}", ERROR_CHARS)
            )
        except (Exception, SystemExit) as error:
            result.error = first_line(f"{type(error).__name__}: {error}", ERROR_CHARS)


def read_calls(
    completion: Completion | Turn | SubTurn, *, native: bool, names: Container[str] = frozenset()
) -> list[ToolCall]:
    """The tool calls of a reply, in order; an empty list where it is an answer.

    `names`: the tools that there are. Calls of these are read in whatever form they are written as text, also where
    tools are called natively: an engine may lack the parser for its model's calls.
    """
    if native and completion.tool_calls:
        functions = [(call.get("function") or {}, call.get("id")) for call in completion.tool_calls]
        return [ToolCall(str(f.get("name") or ""), f.get("arguments") or "", id) for f, id in functions]
    text = visible_text(completion)
    found = [] if native else sorted([*_FENCE.finditer(text), *_TAG.finditer(text)], key=lambda match: match.start())
    calls = [_from_text(match[1].strip()) for match in found]
    if any(call.name for call in calls):
        return calls
    return [ToolCall(call.name, call.arguments) for call in text_calls(text) if call.name in names] or calls


def result_messages(results: Sequence[ToolResult], *, native: bool) -> list[Message]:
    """The results of a reply's calls for the model: a tool message each, or one user message in the text protocol."""
    if native:
        return [{"role": "tool", "tool_call_id": r.id or "", "name": r.name, "content": r.observation} for r in results]
    return [{"role": "user", "content": "\n\n".join(f"[{r.name or 'no tool'}]\n{r.observation}" for r in results)}]


def root_note(tools: ToolBox, users: Container[ToolUser], *, native: bool) -> str:
    """The paragraph about tools for the root LLM's system prompt. `native`: the root LLM calls its tools natively."""
    if "root" in users:
        own = (
            f"Besides the REPL you have these tools, for which your code has no function:\n{tools.listing()}"
            if native
            else f"{tools.instructions()}\n\nYour code has no function for them."
        )
        return f"{own}\nThe models that answer `llm_batch` have the same tools." if "sub" in users else own
    if "sub" in users:
        return (
            "The models that answer `llm_batch` have tools, which they call on their own, several times if need be, "
            f"before they answer. Neither you nor your code can call them:\n{tools.listing()}"
        )
    return ""


def _from_text(body: str) -> ToolCall:
    """A call in the text protocol; its name is empty where it cannot be read."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return ToolCall("", body)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return ToolCall("", body)
    return ToolCall(call["name"], call.get("arguments", {}))


async def _invoke(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Awaits an async function, and runs a sync one in a thread."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return await function(**arguments)
    value = await _in_thread(function, arguments)
    return await value if inspect.isawaitable(value) else value


async def _in_thread(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Runs a sync function in its own daemon thread: if it hangs, it delays neither other calls nor the end of the
    program, as a worker of the shared thread pool would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(value)

    def work() -> None:
        value, error = None, None
        try:
            value = function(**arguments)
        except StopIteration as stop:  # a future refuses it
            error = RuntimeError(f"StopIteration: {stop}")
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:
            return  # the loop has ended, and nobody waits any more

    threading.Thread(target=work, name="rlm-env-tool", daemon=True).start()
    return await done


def _text(value: Any) -> str:
    """A tool's result as text."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def tool_results(rollout: Rollout) -> Iterator[ToolResult]:
    """All tool calls of a rollout with their results: those of the root LLM, then those of its sub-LLMs."""
    for turn in rollout.turns:
        yield from turn.tool_results
    for call in rollout.sub_calls:
        for turn in call.tool_turns:
            yield from turn.tool_results
