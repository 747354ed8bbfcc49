"""The arguments of a call of the REPL's tool, and the code in them, however a model has wrapped it."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from typing import Any

from rlm_env.replies.fences import fenced_blocks
from rlm_env.replies.source import parses, tree_of

TOOL_NAME = "python_repl"
"""The tool that runs code."""

_REPL_NAMES = frozenset(
    (
        *("python_repl", "pythonrepl", "repl", "python", "python3", "py", "ipython", "interpreter"),
        *("python_interpreter", "code_interpreter", "python_code", "python_exec", "exec_python", "execute_python"),
        *("execute_code", "run_python", "run_code", "run_python_code"),
    )
)
_OWN_CALLS = (TOOL_NAME, f"functions.{TOOL_NAME}", f"{TOOL_NAME}.call")
CODE_KEYS = ("code", "python", "source", "python_code", "source_code", "script", "program", "cell", "snippet")
_INNER_KEYS = ("arguments", "parameters", "args", "kwargs", "input", "tool_input", "action_input", "params")
_BEHIND_JSON = re.compile(r"(?:<[^<>]*>|\[/?[A-Z_]+\]|[\s})\];,`])*")
_MAX_WRAPS = 4
"""Encodings one in the other that are taken off."""


def is_repl(name: object) -> bool:
    """True for the name of the tool that runs code, also with a prefix, an index or control tokens around it."""
    return isinstance(name, str) and plain_name(name).lower().replace("-", "_") in _REPL_NAMES


def plain_name(name: str) -> str:
    """A tool's name without namespace (`functions.`), index (`:0`) and leaked control tokens (`<|channel|>...`)."""
    name = re.sub(r"[<\[|].*", "", name.strip(), flags=re.DOTALL).strip()
    return re.sub(r":\d+$", "", name).rpartition(".")[2]


def read_json(text: str) -> Any:
    """JSON as models write it: with raw line breaks in strings, in Python's notation, encoded twice, with brackets or
    control tokens behind it. Raises ValueError."""
    text = text.strip()
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text)
        if not _BEHIND_JSON.fullmatch(text, end):
            raise ValueError(f"there is more behind it, from character {end} on")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        value = _python_literal(text) or _closed(text)
        if value is None:
            raise ValueError(str(error)) from None
    return value


def _closed(text: str) -> Any:
    """The value of JSON at whose end brackets are missing; None where more is missing."""
    if text.startswith("{"):
        for brackets in ("}", "}}", "]}", "}]", "}}]"):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(text + brackets, strict=False)
    return None


def _python_literal(text: str) -> Any:
    if not text.startswith(("{", "[")) or tree_of(text) is None:
        return None
    try:
        return ast.literal_eval(text) or None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def read_arguments(raw: Any) -> Any:
    """The arguments of a call: the value of its JSON text, however often it was encoded; text that is whole Python
    code is left as it is. Raises ValueError where it is neither."""
    for _ in range(_MAX_WRAPS):
        if not isinstance(raw, str):
            break
        start = raw.lstrip()[:1]
        if not start:
            break
        if start not in '{["':
            if parses(raw) or "```" in raw:
                break
            raise ValueError(_complaint(raw))
        try:
            raw = read_json(raw)
        except ValueError:
            if start != "{" and parses(raw):
                break
            raise
    return raw


def _complaint(text: str) -> str:
    """Why arguments cannot be read."""
    try:
        json.loads(text)
    except ValueError as error:
        return str(error)
    return "it is no object"


def code_of(arguments: Any) -> str | None:
    """The code in the arguments of a call of the REPL's tool; None where there is none."""
    for _ in range(_MAX_WRAPS):
        if isinstance(arguments, str):
            return bare_code(arguments) if arguments.strip() else None
        if isinstance(arguments, list) and arguments and all(isinstance(line, str) for line in arguments):
            arguments = "\n".join(arguments)
            continue
        if isinstance(arguments, list) and len(arguments) == 1:
            arguments = arguments[0]
        if not isinstance(arguments, dict):
            return None
        arguments = _inside(arguments)
    return None


def _inside(arguments: dict[Any, Any]) -> Any:
    for key in (*CODE_KEYS, *_INNER_KEYS):
        if key in arguments:
            return arguments[key]
    texts = [value for value in arguments.values() if isinstance(value, str)]
    return texts[0] if len(texts) == 1 else None


def bare_code(code: str) -> str:
    """Code without what is wrapped around the whole of it: a Markdown fence, a tag, JSON, a call of the tool itself."""
    for _ in range(_MAX_WRAPS):
        inner = _unwrapped(code)
        if inner is None or inner == code:
            break
        code = inner
    return code


def _unwrapped(code: str) -> str | None:
    """Code without one layer of fence, quotes or call."""
    tree = tree_of(code)
    if tree is not None:
        return _of_call(tree)
    if code.lstrip().startswith(">>> "):  # as in a session: the code without its prompts and output
        return "\n".join(line.lstrip()[4:] for line in code.splitlines() if line.lstrip().startswith((">>> ", "... ")))
    if tagged := re.fullmatch(r"\s*<(\w+)>(.*)</\1>\s*", code, re.DOTALL):
        return tagged[2].strip("\n")
    blocks = fenced_blocks(code)
    if code.lstrip().startswith(("```", "~~~")):
        return "\n".join(block.code for block in blocks if block.is_python or not block.label) or None
    return "\n".join(block.code for block in blocks if block.is_python) or None


def _of_call(tree: ast.Module) -> str | None:
    """The code in `python_repl(code="...")` or {"code": "..."}, where that is all there is."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    value = tree.body[0].value
    if isinstance(value, ast.Call) and ast.unparse(value.func) in _OWN_CALLS:
        given = [*value.args, *(keyword.value for keyword in value.keywords)]
        return _constant(given[0]) if len(given) == 1 else None
    if isinstance(value, ast.Dict):
        fields = {_constant(key): item for key, item in zip(value.keys, value.values, strict=True)}
        if len(fields) == 1:
            return next((_constant(fields[key]) for key in CODE_KEYS if key in fields), None)
        if is_repl(_constant(fields.get("name"))):
            arguments = next((fields[key] for key in _INNER_KEYS if key in fields), None)
            return ast.unparse(arguments) if isinstance(arguments, ast.Dict) else _constant(arguments)
    return None


def _constant(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
