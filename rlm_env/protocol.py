"""The REPL tool protocol as text: the tool schema, the first user message, the cells of a reply, observations.

Everything that the root LLM reads about a cell, a time limit included, is worded here. System prompts are in
`prompts/`, the forms in which models write code in `replies/`, the conversation in `scaffolds/repl_loop.py`, running
code in `repl/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlm_env.context import describe_context
from rlm_env.repl import StepResult, shorten
from rlm_env.replies import (
    TOOL_NAME,
    Code,
    TextCall,
    code_of,
    handed_in,
    is_repl,
    parses,
    read_arguments,
    read_forms,
    visible_text,
)

if TYPE_CHECKING:
    from rlm_env.messages import Completion, Message
    from rlm_env.task import Task

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


def extract_cells(completion: Completion, *, use_tool: bool = False, aliases: bool = True) -> list[Cell | Problem]:
    """The cells of a reply in the order to run them, with a `Problem` in place of each that cannot be run.

    Tool calls of the engine win over code in the text, and there code that is called so (a call of the tool, a label, a
    tag) over blocks without a label. All forms are understood whichever was asked for (`use_tool` only words the hint).
    With `aliases`, a reply without code may hand in its answer as `FINAL(...)` on a line of its own.
    Never empty: a reply without code gives one Problem that says so.
    """
    if completion.tool_calls:
        return [_from_tool_call(call) for call in completion.tool_calls]
    cut_off = completion.finish_reason == "length"
    text = visible_text(completion)
    forms = read_forms(text)
    chosen = [form for form in forms if (form.labeled if isinstance(form, Code) else is_repl(form.name))]
    chosen = chosen or [form for form in forms if isinstance(form, Code)]
    if not chosen and aliases and (code := handed_in(text)) is not None:
        return [Cell(code)]
    chosen = chosen or forms
    if not chosen:
        why = "it was cut off by the token limit before any code" if cut_off else "there was no code in it"
        how = f"Call the tool {TOOL_NAME}." if use_tool else "Put Python code between ```repl and ```."
        return [Problem(f"Nothing ran from your reply: {why}. {how}")]
    found: list[Cell | Problem] = []
    for form in chosen:
        item = _from_code(form, cut_off) if isinstance(form, Code) else _from_text_call(form, cut_off)
        if not found or isinstance(item, Cell) or item != found[-1]:
            found.append(item)
    return found


def _from_code(code: Code, cut_off: bool) -> Cell | Problem:
    """The cell of a fenced block or tag, or the Problem that keeps it from being run."""
    if not code.code.strip():
        return Problem("Nothing ran: the code block was empty.")
    if cut_off and not code.closed and not parses(code.code):
        return Problem("Nothing ran: your code block was cut off by the token limit. Write a shorter one.")
    return Cell(code.code)


def _from_text_call(call: TextCall, cut_off: bool) -> Cell | Problem:
    """The cell of a call that is written as text, or the Problem with it."""
    item = _from_call(call.name, call.arguments, None)
    if cut_off and isinstance(item, Problem) and isinstance(call.arguments, str):
        return Problem("Nothing ran: your tool call was cut off by the token limit. Write a shorter one.")
    return item


def _from_tool_call(call: dict) -> Cell | Problem:
    """The cell of a tool call that the engine has parsed, or the Problem with it."""
    function = call.get("function") or {}
    return _from_call(function.get("name"), function.get("arguments"), call.get("id"))


def _from_call(name: object, arguments: object, call_id: str | None) -> Cell | Problem:
    """The cell of a call by its name and arguments, or the Problem with it."""
    if name == "":
        return Problem("Nothing ran: the tool call could not be read, it is not valid JSON.", call_id)
    if not is_repl(name):
        return Problem(f"Nothing ran: there is no tool {name!r}, only {TOOL_NAME}(code).", call_id)
    try:
        code = code_of(read_arguments(arguments))
    except ValueError as error:
        return Problem(f"Nothing ran: the tool call's arguments are not valid JSON ({error}).", call_id)
    if code is None or not code.strip():
        return Problem('Nothing ran: the tool call needs {"code": "..."} with Python code as a string.', call_id)
    return Cell(code, call_id)


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
