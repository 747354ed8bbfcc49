"""Tool calls that are written as text, as models do whose endpoint has no parser for their tool calls.

The forms: JSON behind a marker (Hermes, Qwen, Mistral, Llama, Granite, Phi), a name with JSON behind it (Mistral, Kimi,
DeepSeek, harmony, ReAct, Qwen 2), XML parameters (Qwen3-Coder, MiniMax, DeepSeek 3.2, GLM), Python calls (Llama, LFM).
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from rlm_env.replies.arguments import CODE_KEYS, TOOL_NAME, is_repl, plain_name, read_json
from rlm_env.replies.source import closing_tag, tree_of


@dataclass(frozen=True, slots=True)
class TextCall:
    """A tool call in a reply's text. `start` and `end` are its offsets."""

    name: str
    """Empty where the call cannot be read; `arguments` is then the text that was to be one."""
    arguments: Any
    """The parsed value, or the model's text where it could not be parsed."""
    start: int
    end: int
    by_line: bool = False
    """It was found as JSON on a line of its own, whether or not a marker stands before it."""


_BAR = r"[|｜]"
_KIND = r"(?:tools?|functions?|plugin|action|python)"
_WORD = rf"(?:(?:start|begin)[_▁])?{_KIND}(?:[_▁ ]?(?:calls?|use|tag|section|prefix))*"
MARKER = re.compile(
    rf"<{_BAR}?(?:{_WORD}(?:[_▁](?:start|begin))?){_BAR}?>|\[TOOL_CALLS?\]|\[AVAILABLE_CALLS?\]|<functioncall>|\bfunctools(?=\[\s*\{{)",
    re.IGNORECASE,
)
"""What announces a call."""
_CALL_END = re.compile(
    rf"</?[\w:|｜]*(?:calls?|tool_use|tools|function|action)[\w:|｜]*>|<{_BAR}[^<>]*>|<[^<>]*{_BAR}>|\[TOOL_CALLS\]|\Z",
    re.IGNORECASE,
)
_LINE_OF_JSON = re.compile(r"""^[ \t]*(?=\[?\s*\{\s*["'](?:name|type|function|tool|tool_name)["']\s*:)""", re.MULTILINE)
_OWN = re.compile(rf"^[ \t]*\[?(?:functions\.)?{TOOL_NAME}(?:\.call)?\(", re.MULTILINE)
_OWN_END = re.compile(r"\)[ \t]*\]?[ \t]*$", re.MULTILINE)
"""Behind a call of the REPL's tool as Python's."""
_MOST_ENDS, _MOST_TAGS = 200, 4
"""How many of them are tried, and how many tags behind a call that is marked."""
_GEMMA = re.compile(
    r"call:(?P<name>[\w.-]+)\{(?P<body>(?:[^{}<]|<escape>.*?<escape>|<\|\"\|>.*?<\|\"\|>)*)\}", re.DOTALL
)
_GEMMA_PAIR = re.compile(r"(?P<key>\w+)\s*:\s*(?P<quote><escape>|<\|\"\|>)(?P<value>.*?)(?P=quote)", re.DOTALL)
_FUNCTIONARY = re.compile(r"^>>>(?P<name>[A-Za-z_]\w*)\n", re.MULTILINE)
_BETWEEN = re.compile(r"(?:\s|,|;|</?[^<>=\"{}]*>|```\w*)*")
"""What stands between two calls, and between a marker and its call."""
_NAME = r"(?:functions?[.:])?(?P<name>[A-Za-z_][\w.-]*)(?::\d+)?"
_SEPARATOR = r"(?:\s|<[^<>={}\[]*>|\[ARGS\]|\[CALL_ID\]\w*|```\w*)*"
_NAME_FIRST = re.compile(rf"(?:function(?=\s*<)\s*<[^<>]*>)?\s*{_NAME}{_SEPARATOR}(?=[{{\[])")
_GLM = re.compile(r"\s*(?P<name>[\w.-]+)\s*(?=<arg_key>)")
_GLM_KEY = re.compile(r"\s*<arg_key>(?P<key>[^<]*)</arg_key>\s*<arg_value>")
_GLM_END = re.compile(r"</arg_value>")
_AT_A_GLM_END = re.compile(r"</arg_value>\s*(?:<|\Z)")
_ADDRESSED = re.compile(
    r"(?<![\w.])to=(?P<name>[A-Za-z_][\w.]*)(?:[ \t]|<\|(?!message)[^<>|]*\|>|(?:commentary|analysis|json|code)\b)*"
    r"(?:<\|message\|>|(?<=json)|(?<=code)|(?<=[ \t])(?=\{))\s*"
)
_REACT = re.compile(
    r"^[ \t*]*Action[ \t*]*:[ \t*]*(?P<name>\w[\w.-]*)[ \t*]*\n+[ \t*]*Action Input[ \t*]*:[ \t*]*", re.M
)
_REACT_END = re.compile(r"^[ \t*]*Observation[ \t*]*:", re.M)
_QWEN2 = re.compile(r"✿FUNCTION✿:?\s*(?P<name>[\w.-]+)\s*✿ARGS✿:?\s*")
_PREFIX = r"(?:[\w-]+:|[|｜]DSML[|｜])?"
_PARAMETER = r"(?:parameter|param|arg)"
_FUNCTION = r"(?:function|invoke|tool)"
_NAMED = r"(?:=|\s+name\s*=\s*)[\"']?(?P<{}>[\w.:-]+)[\"']?[^<>]*>"
_XML = re.compile(rf"<{_PREFIX}{_FUNCTION}{_NAMED.format('name')}\s*")
_XML_TAG = re.compile(
    rf"<{_PREFIX}{_PARAMETER}{_NAMED.format('key')}|(?P<value_end></{_PREFIX}{_PARAMETER}>)"
    rf"|(?P<end></{_PREFIX}(?:{_FUNCTION}|tool_calls?|function_calls)>)|<{_PREFIX}{_FUNCTION}{_NAMED.format('next')}"
)
_XML_TAG_OR_END = re.compile(rf"(?:{_XML_TAG.pattern})|\Z")
_AT_AN_XML_END = re.compile(
    rf"</{_PREFIX}{_PARAMETER}>\s*(?:</|<{_PREFIX}(?:{_PARAMETER}|{_FUNCTION})\b|\Z)"
    rf"|</{_PREFIX}{_FUNCTION}>\s*(?:<|\Z)|(?<=\n)<|\Z"
)
_PYTHON_CALL = re.compile(r"[A-Za-z_][\w.]*\(")
_HARMONY_END = re.compile(r"<\|(?:call|end|return|start|channel)\|>|\Z")
_SPOKEN_NAME = re.compile(r"""["'](?:name|tool|tool_name)["']\s*:\s*["']([^"']+)["']""")
_NAME_KEYS = ("name", "tool", "tool_name", "function_name", "recipient_name", "action")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "kwargs", "input", "tool_input", "action_input", "params")
_DECODER = json.JSONDecoder(strict=False)


def marked_calls(text: str) -> Iterator[TextCall]:
    """Calls that are announced by a marker of some model, in no particular order; they may overlap."""
    if "<" in text or "[TOOL" in text or "functools[" in text:
        at = 0
        while marker := MARKER.search(text, at):
            calls, at = _behind_marker(text, marker)
            yield from calls
        at = 0
        while opening := _XML.search(text, at):
            yield (call := _of_xml(text, opening))
            at = max(call.end, opening.end())
    if "to=" in text:
        yield from _one_by_one(text, _ADDRESSED, _HARMONY_END)
    yield from _one_by_one(text, _REACT, _REACT_END)
    yield from _one_by_one(text, _QWEN2, _REACT_END)
    yield from _one_by_one(text, _FUNCTIONARY, _FUNCTIONARY)
    at = 0
    while line := _LINE_OF_JSON.search(text, at):
        calls, end = _json_calls(text, line.start(), line.end())
        yield from (replace(call, by_line=True) for call in calls)
        at = max(end, line.end() + 1)
    yield from _own_python_calls(text)
    for match in _GEMMA.finditer(text) if "call:" in text else ():
        arguments = {pair["key"]: _value(pair["value"]) for pair in _GEMMA_PAIR.finditer(match["body"])}
        yield TextCall(plain_name(match["name"]), arguments, match.start(), match.end())


def _one_by_one(text: str, opening: re.Pattern[str], ending: re.Pattern[str]) -> Iterator[TextCall]:
    """Calls whose arguments go from the end of `opening` to `ending`; none begins inside another."""
    at = 0
    while match := opening.search(text, at):
        stop = ending.search(text, match.end())
        end = stop.start() if stop else len(text)
        call = _named(match["name"], text, match.start(), match.end(), end)
        yield call
        at = max(call.end, match.end())


def _own_python_calls(text: str) -> Iterator[TextCall]:
    """Calls of the REPL's tool on lines of their own, as `python_repl(code="...")`."""
    at = 0
    while opening := _OWN.search(text, at):
        for end in islice(_OWN_END.finditer(text, opening.end()), _MOST_ENDS):
            calls = _python_calls(text[opening.start() : end.end()].strip(), opening.start(), end.end())
            if calls:
                break
        else:
            return  # looking at every end for every opening would take too long
        yield from (replace(call, by_line=True) for call in calls if call.arguments)
        at = end.end()


def is_call(text: str) -> bool:
    """True for text that begins like a call in JSON, or is a call of the REPL in Python's notation."""
    if text.lstrip().startswith("{"):
        return True
    calls = whole_text_calls(text) or _python_calls(text.strip(), 0, len(text))
    return any(is_repl(call.name) for call in calls)


def whole_text_calls(text: str) -> list[TextCall]:
    """The calls of a text that is nothing but calls: JSON objects with a name and arguments, or Python calls in
    brackets."""
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] not in ("{", "["):
        return []
    calls, at = _json_calls(text, start, start)
    if calls and not re.sub(r"<[^<>]*>|[;,\s]", "", text[at:]):
        return calls
    if calls := _python_calls(text.strip(), start, len(text)):
        return calls
    try:
        call = _of_value(read_json(text))
    except ValueError:
        return []
    return [TextCall(call[0], call[1], start, len(text))] if call else []


def _behind_marker(text: str, marker: re.Match[str]) -> tuple[list[TextCall], int]:
    """The calls that a marker announces, and the offset from which to look for the next marker."""
    start = marker.start()
    at = _skip(text, marker.end())
    if text[at : at + 1] in ("{", "["):
        calls, end = _json_calls(text, start, at)
        if calls:
            return calls, max(calls[-1].end, marker.end())
        end = _end_of_call(text, at)
        if calls := _python_calls(text[at:end].strip(), start, end):
            return calls, end
        spoken = _SPOKEN_NAME.search(text, at, end)
        return [TextCall(plain_name(spoken[1]) if spoken else "", text[at:end].strip(), start, end)], end
    if glm := _GLM.match(text, at):
        arguments, end = {}, glm.end()
        while (key := _GLM_KEY.match(text, end)) and (
            closing := closing_tag(text, key.end(), _GLM_END.finditer(text, key.end()), _AT_A_GLM_END)
        ):
            arguments[key["key"].strip()] = _value(text[key.end() : closing.start()])
            end = closing.end()
        return [TextCall(plain_name(glm["name"]), arguments, start, end)], end
    if _PYTHON_CALL.match(text, at):
        for closing in islice(_CALL_END.finditer(text, at), _MOST_TAGS):
            end = closing.start()
            calls = _python_calls(text[at:end].strip(), start, end)
            if calls:
                code = "python" in marker[0] and not any(
                    is_repl(call.name) or "argument_0" not in call.arguments for call in calls
                )
                return [] if code else calls, max(end, marker.end())
        return [], max(_end_of_call(text, at), marker.end())
    calls = []
    while named := _NAME_FIRST.match(text, at):
        call = _named(named["name"], text, start, named.end(), None)
        calls.append(call)
        start = at = _skip(text, call.end)
    return calls, max(at, marker.end())


def _end_of_call(text: str, at: int) -> int:
    closing = _CALL_END.search(text, at)
    return closing.start() if closing else len(text)


def _skip(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _json_calls(text: str, start: int, at: int) -> tuple[list[TextCall], int]:
    """The calls of the JSON values at `at`, and the offset behind them; none where one of them is no call."""
    calls: list[TextCall] = []
    while text[at : at + 1] in ("{", "["):
        value, end = _decode(text, at)
        found = [_of_value(item) for item in (value if isinstance(value, list) else [value])]
        if not found or not all(found):
            break
        calls += [TextCall(call[0], call[1], start, end) for call in found if call]
        start = at = _skip(text, end)
        if start > end:
            start = end
    return calls, at


def _decode(text: str, at: int) -> tuple[Any, int]:
    """The JSON value at an offset and the offset behind it; None where there is none."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at


def _of_value(value: Any) -> tuple[str, Any] | None:
    """Name and arguments of a call in JSON; None where a value is no call."""
    if not isinstance(value, dict):
        return None
    for key in ("function", "function_call", "tool_calls"):
        inner = value.get(key)
        inner = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
        if isinstance(inner, dict):
            return _of_value(inner)
    inner = value.get("function")
    name = inner if isinstance(inner, str) else next((value[key] for key in _NAME_KEYS if key in value), None)
    key = next((key for key in _ARGUMENT_KEYS if key in value), None)
    if not isinstance(name, str):
        if len(value) != 1:
            return None
        ((key, only),) = value.items()
        if key in CODE_KEYS and isinstance(only, str):
            return TOOL_NAME, value
        return (plain_name(key), only) if is_repl(key) and isinstance(only, dict) else None
    if key is None:
        return (plain_name(name), value) if "code" in value else None
    return plain_name(name), value[key]


def _named(name: str, text: str, start: int, at: int, end: int | None) -> TextCall:
    """The call of a name that stands before its arguments, which are JSON or, up to `end`, anything else."""
    value, behind = _decode(text, at)
    if behind > at:
        return TextCall(plain_name(name), value, start, behind)
    if end is None:
        end = _end_of_call(text, at)
    raw = text[at:end].strip()
    try:
        return TextCall(plain_name(name), read_json(raw), start, end)
    except ValueError:
        return TextCall(plain_name(name), raw, start, end)


def _of_xml(text: str, opening: re.Match[str]) -> TextCall:
    """The call in XML tags: parameters, or JSON."""
    name, body = plain_name(opening["name"]), opening.end()
    value, at = _decode(text, body) if text[body : body + 1] in ("{", "[") else (None, body)
    arguments: dict[str, str] = {}
    while tag := _XML_TAG.search(text, at):
        if tag["key"]:
            closing = closing_tag(text, tag.end(), _XML_TAG_OR_END.finditer(text, tag.end()), _AT_AN_XML_END) or tag
            arguments[tag["key"]] = _value(text[tag.end() : closing.start()])
            at = closing.end() if closing["value_end"] else closing.start()
        elif tag["value_end"]:
            at = tag.end()
        else:
            break
    body_end = tag.start() if tag else len(text)
    end = tag.end() if tag and tag["end"] else body_end
    if arguments:
        return TextCall(name, arguments, opening.start(), end)
    if value is None:
        value = text[body:body_end].strip()
        with contextlib.suppress(ValueError):
            value = read_json(value)
    return TextCall(name, value, opening.start(), end)


def _value(text: str) -> str:
    """A parameter without the line breaks that part it from its tags."""
    return text.removeprefix("\n").removesuffix("\n")


def _python_calls(text: str, start: int, end: int) -> list[TextCall]:
    """The calls of `[name(key="value"), ...]`, or of one call without brackets; none where it is anything else."""
    tree = tree_of(text)
    values = [line.value for line in tree.body if isinstance(line, ast.Expr)] if tree else []
    if tree is None or len(values) != len(tree.body):
        return []
    calls = []
    for node in (node for value in values for node in (value.elts if isinstance(value, ast.List) else [value])):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            return []
        try:
            arguments = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in node.keywords}
            arguments |= {f"argument_{i}": ast.literal_eval(given) for i, given in enumerate(node.args)}
        except (ValueError, TypeError, RecursionError, MemoryError):
            return []
        calls.append(TextCall(plain_name(ast.unparse(node.func).removesuffix(".call")), arguments, start, end))
    return calls
