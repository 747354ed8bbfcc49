"""The code and the calls of a reply, in the order in which they are written.

A form inside another is part of that: a fence in the code of a call, a tag in a string of a fenced block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from rlm_env.replies.arguments import TOOL_NAME, bare_code, is_repl
from rlm_env.replies.calls import TextCall, is_call, marked_calls, whole_text_calls
from rlm_env.replies.fences import Block, fenced_blocks
from rlm_env.replies.source import closing_tag


@dataclass(frozen=True, slots=True)
class Code:
    """Code to run, in a fence or a tag. `start` and `end` are offsets in the text."""

    code: str
    closed: bool
    bare: bool
    """It is written as it is, with nothing else wrapped around it."""
    labeled: bool
    """It is called code by its label or tag. Other blocks are code only where nothing else is."""
    start: int
    end: int


Form = Code | TextCall

_TAGS = (
    "code execute execute_ipython execute_python execute_code python py tool_code python_repl repl interpreter "
    "code_interpreter ipython python_code run_python jupyter"
).replace(" ", "|")
_TAG = re.compile(rf"<(?P<tag>{_TAGS})(?:\s[^<>\n]*)?>", re.IGNORECASE)
_AT_A_TAGS_END = re.compile(r"</\w+>[ \t]*(?:\n|<|\Z)|\Z")
_PRE = re.compile(r"</?pre\b[^<>\n]*>", re.IGNORECASE)
_LINE_OF_CALL = re.compile(r"^[ \t]*(?=[{\[])", re.MULTILINE)
_MOST_TRIED = 4
"""Lines at which calls behind words are looked for."""
_TOKENS = re.compile(
    r"<\|python_(?:tag|start)\|>(?P<code>.*?)(?:<\|[\w ]*\|>|\Z)|\[PYTHON\](?P<code2>.*?)(?:\[/PYTHON\]|\Z)", re.DOTALL
)
_CALL_STARTS = ("{", "[", "<", f"{TOOL_NAME}(")


def read_forms(text: str) -> list[Form]:
    """What a reply without thoughts holds, in order: code, and calls of any tool. Blocks with another label than
    Python's are not in it."""
    if whole := whole_text_calls(text):
        return [*whole]
    forms: list[Form] = []
    for form in _outermost([*fenced_blocks(text), *marked_calls(text), *_tagged(text)]):
        forms += _of_block(form) if isinstance(form, Block) else [form]
    return forms or _last_calls(text)


def _last_calls(text: str) -> list[Form]:
    """The calls of the REPL that a text ends with, on lines of their own behind words."""
    for found in islice(_LINE_OF_CALL.finditer(text), _MOST_TRIED):
        calls = whole_text_calls(text[found.start() :])
        if any(is_repl(call.name) for call in calls):
            return [replace(call, start=call.start + found.start(), end=call.end + found.start()) for call in calls]
    return []


def _outermost(candidates: list[Form | Block]) -> Iterator[Form | Block]:
    """The forms in order, without those inside another. Calls at the same place are one list of calls, unless the same
    call has been found in two ways."""
    end, last = -1, None
    for form in sorted(candidates, key=lambda form: (form.start, -form.end, not isinstance(form, TextCall))):
        if form.start >= end or (_is_call_of(last, form) and form.end == end):
            end, last = form.end, form
            yield form


def _is_call_of(last: Form | Block | None, form: Form | Block) -> bool:
    """True for two calls of one list."""
    if not isinstance(form, TextCall) or not isinstance(last, TextCall):
        return False
    return form.start == last.start and form.by_line == last.by_line


def text_calls(text: str) -> list[TextCall]:
    """The tool calls that are written in a text, in order."""
    return [form for form in read_forms(text) if isinstance(form, TextCall)]


def _of_block(block: Block) -> list[Form]:
    """A block's code, or the calls that it holds where it is not labeled as Python."""
    if not block.is_python and block.code.lstrip().startswith(_CALL_STARTS):
        found = whole_text_calls(block.code) or _outermost([*marked_calls(block.code)])
        calls = [
            TextCall(one.name, one.arguments, block.start, block.end) for one in found if isinstance(one, TextCall)
        ]
        if calls:
            return [*calls]
    if not block.is_python and block.label:
        return []
    code = bare_code(block.code)
    return [Code(code, block.closed, code == block.code, block.is_python, block.start, block.end)]


def _tagged(text: str) -> Iterator[Code]:
    """Code in tags. In a sentence a tag only marks a word."""
    if "<" not in text and "[PYTHON]" not in text:
        return
    at = 0
    while tag := _TAG.search(text, at):
        ends = re.compile(rf"</{tag['tag']}>|\Z", re.IGNORECASE)
        closing = closing_tag(text, tag.end(), ends.finditer(text, tag.end()), _AT_A_TAGS_END) or tag
        at, code = closing.end(), text[tag.end() : closing.start()]
        line_start = text.rfind("\n", 0, tag.start()) + 1
        line_end = text.find("\n", at)
        before = _PRE.sub("", text[line_start : tag.start()]).strip()
        behind = _PRE.sub("", text[at : line_end if line_end >= 0 else len(text)]).strip()
        if code.startswith("\n") or not (before or behind):
            yield _code(code, tag.start(), at, closed=bool(closing[0]))
    for match in _TOKENS.finditer(text):
        code = match["code"] if match["code"] is not None else match["code2"]
        if not is_call(code):
            yield _code(
                code, match.start(), match.end(), closed=match.end() < len(text) or match[0].endswith((">", "]"))
            )


def _code(code: str, start: int, end: int, *, closed: bool) -> Code:
    code = code.strip("\n")
    inner = bare_code(code)
    return Code(inner, closed, inner == code, True, start, end)
