"""The REPL tool protocol as text: the tool schema, the first user message, finding code in a reply, observations.

Everything that the root LLM reads about a cell, a time limit included, is worded here. System prompts are in
`prompts/`, the conversation is in `scaffolds/repl_loop.py`, running code in `repl/`.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from rlm_env.context import describe_context
from rlm_env.repl import StepResult, shorten

if TYPE_CHECKING:
    from rlm_env.messages import Completion, Message
    from rlm_env.task import Task

TOOL_NAME = "python_repl"
TOOL = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Runs Python code in the persistent REPL and returns what it printed.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The Python code to run."}},
            "required": ["code"],
        },
    },
}

_LABELLED = frozenset({"repl", "python", "py", "python3"})
_FENCE = re.compile(r"^[ \t]*(?P<ticks>`{3,})[ \t]*(?P<label>[\w+-]*)[^`]*$")
_CLOSE = re.compile(r"^[ \t]*(?P<ticks>`{3,})[ \t]*$")
_THINK = re.compile(r"^\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
# A reply is bounded by its token limit; these keep the search for a block's end cheap on adversarial ones.
_MAX_CLOSERS_TRIED = 32
_MAX_PARSED_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class Cell:
    """Code to run."""

    code: str
    tool_call_id: str | None = None
    """The tool call that asked for it; None for a fenced block."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something in a reply was not run, in words for the model."""

    text: str
    tool_call_id: str | None = None


def extract_cells(completion: Completion, *, use_tool: bool = False) -> list[Cell | Problem]:
    """The cells of a reply in the order to run them, with a `Problem` in place of each that cannot be run.

    Tool calls win over fenced blocks; both are understood whichever was asked for (`use_tool` only words the hint).
    Never empty: a reply without code gives one Problem that says so.
    """
    if completion.tool_calls:
        return [_from_tool_call(call) for call in completion.tool_calls]
    cut_off = completion.finish_reason == "length"
    text = strip_thinking(completion.text)
    blocks = _fenced_blocks(text)
    labelled = [block for block in blocks if block.label in _LABELLED]
    chosen = labelled or [block for block in blocks if block.label == ""]
    if not chosen:
        why = "it was cut off by the token limit before any code" if cut_off else "there was no code in it"
        how = f"Call the tool {TOOL_NAME}." if use_tool else "Put Python code between ```repl and ```."
        return [Problem(f"Nothing ran from your reply: {why}. {how}")]
    found: list[Cell | Problem] = []
    for block in chosen:
        if not block.code.strip():
            found.append(Problem("Nothing ran: the code block was empty."))
        elif cut_off and not block.closed and not _parses(block.code):
            found.append(Problem("Nothing ran: your code block was cut off by the token limit. Write a shorter one."))
        else:
            found.append(Cell(block.code))
    return found


def strip_thinking(text: str) -> str:
    """The text without the `<think>` block at its start, closed or cut off, which some engines leave in the reply."""
    return _THINK.sub("", text, count=1)


def _from_tool_call(call: dict) -> Cell | Problem:
    call_id = call.get("id")
    function = call.get("function") or {}
    if function.get("name") != TOOL_NAME:
        return Problem(f"Nothing ran: there is no tool {function.get('name')!r}, only {TOOL_NAME}(code).", call_id)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            return Problem(f"Nothing ran: the tool call's arguments are not valid JSON ({error}).", call_id)
    code = arguments.get("code") if isinstance(arguments, dict) else arguments
    if not isinstance(code, str) or not code.strip():
        return Problem('Nothing ran: the tool call needs {"code": "..."} with Python code as a string.', call_id)
    return Cell(code, call_id)


@dataclass(frozen=True, slots=True)
class _Block:
    label: str
    code: str
    closed: bool


def _fenced_blocks(text: str) -> list[_Block]:
    """All top-level fenced blocks of a reply, whatever their label."""
    lines = text.split("\n")
    blocks: list[_Block] = []
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if not opening:
            at += 1
            continue
        label = opening["label"].lower()
        closers = list(islice(_closers(lines, at, len(opening["ticks"])), _MAX_CLOSERS_TRIED))
        if not closers:
            body = "\n".join(lines[at + 1 :]).rstrip()
            closed = body.endswith("```")  # ... on the last line of code, as small models do
            blocks.append(_Block(label, _dedent(body.removesuffix("```")), closed))
            break
        # A fence inside a string of the code (a prompt with ```json in it, say) looks like the end of the block:
        # the end is the first one at which the code is whole; if there is none, simply the first one.
        end = closers[0]
        if label in _LABELLED or label == "":
            end = next((i for i in closers if _parses("\n".join(lines[at + 1 : i]))), end)
        blocks.append(_Block(label, _dedent("\n".join(lines[at + 1 : end])), closed=True))
        at = end + 1
    return blocks


def _dedent(code: str) -> str:
    """The code without the indentation of its first line. Without any it is left alone: `textwrap.dedent` also empties
    lines of blanks, inside strings too, and a text that is copied verbatim would lose them."""
    first = next((line for line in code.split("\n") if line.strip()), "")
    return textwrap.dedent(code) if first.startswith((" ", "\t")) else code


def _closers(lines: list[str], opening: int, ticks: int) -> Iterator[int]:
    """Indices of the lines after `opening` that could close a fence of that many ticks."""
    for index in range(opening + 1, len(lines)):
        close = _CLOSE.match(lines[index])
        if close and len(close["ticks"]) >= ticks:
            yield index


def _parses(code: str) -> bool:
    if len(code) > _MAX_PARSED_CHARS:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(_dedent(code), "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def user_message(task: Task) -> str:
    """The first user message: the question and the description of the context, never the context."""
    if isinstance(task.context, str) and not task.context:
        return f"Question: {task.question}"
    return f"Question: {task.question}\nContext: {describe_context(task.context)}"


@dataclass(frozen=True, slots=True)
class Observation:
    """The feedback on one part of a reply: a cell that ran or could not run, or a tool call."""

    text: str
    tool_call_id: str | None = None
    """The tool call that it answers; None for a fenced block."""


def observation_text(step: StepResult, limit: int) -> str:
    """The text of a cell's observation, cut to `limit` characters (at least 200)."""
    parts = [f"Output:\n{step.output.rstrip()}" if step.output.strip() else "Output: (nothing was printed)"]
    if step.error:
        parts.append(f"Error:\n{step.error.rstrip()}")
    if step.timed_out:
        parts.append(f"The cell was stopped at its time limit, after {step.seconds:.1f} s of its own time.")
    if step.state_lost:
        parts.append("The REPL had to be started afresh: `context` is there again, your other variables are gone.")
    elif step.timed_out:
        parts.append("Your variables are kept.")
    return shorten("\n".join(parts), limit)


def join_observations(observations: Sequence[Observation]) -> str:
    """The observations on one reply as one text."""
    if len(observations) == 1:
        return observations[0].text
    count = len(observations)
    return "\n\n".join(f"[block {i} of {count}]\n{one.text}" for i, one in enumerate(observations, 1))


def observation_messages(observations: Sequence[Observation]) -> list[Message]:
    """The observations on one reply as messages: one tool message per tool call, one user message for fenced blocks."""
    if observations[0].tool_call_id is None:
        return [{"role": "user", "content": join_observations(observations)}]
    return [{"role": "tool", "tool_call_id": one.tool_call_id, "content": one.text} for one in observations]
