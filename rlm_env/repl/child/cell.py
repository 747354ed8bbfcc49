"""Running one cell: Python as at an interactive prompt, in a namespace that lasts.

The last expression is echoed, top-level `await` works, tracebacks show cells as `<cell 3>` with their source, `exit()`
ends only the cell, and pickle finds its classes in `__main__`. Time limits are the host's (`host/step.py`); what a cell
prints goes to `capture.py`.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import linecache
import operator
import os
import subprocess
import sys
import traceback
import warnings
from _sitebuiltins import _Helper
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from rlm_env.repl.bounds import MAX_ERROR, shorten
from rlm_env.repl.child.capture import NoInput, Recorder, Stream

_OWN = str(Path(__file__).parents[1])
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_TREE = _FLAGS | ast.PyCF_ONLY_AST
"""To the syntax tree only. `ast.parse` would show up in the traceback of a syntax error."""
# Kept under names of our own: a cell may set `linecache.cache = None`.
_compile, _eval, _cells, _is = compile, eval, linecache.cache, operator.is_
_TracebackException = traceback.TracebackException


class Namespace:
    """The module `__main__` of a REPL, in which cells run."""

    def __init__(self, recorder: Recorder, denied_hint: str) -> None:
        self._module = ModuleType("__main__")
        self.names: dict[str, Any] = self._module.__dict__
        self.names["__builtins__"] = builtins
        sys.modules["__main__"] = self._module
        self._recorder = recorder
        self._denied_hint = denied_hint
        self._streams = Stream(recorder, 1), Stream(recorder, 2), NoInput()
        sys.__stdout__, sys.__stderr__ = self._streams[:2]
        warnings.formatwarning = _format_warning
        self._loop: asyncio.AbstractEventLoop | None = None
        _add_site_builtins()
        self._builtins = dict(builtins.__dict__)
        self.restore()

    def restore(self) -> None:
        """Undoes what a cell may have done to the streams, the builtins, tracing and the recursion limit."""
        sys.stdout, sys.stderr, sys.stdin = self._streams
        sys.settrace(None)
        sys.setprofile(None)
        if sys.getrecursionlimit() < 1000:
            sys.setrecursionlimit(1000)
        # By identity: comparing would call the model's own __eq__, where nothing holds it.
        now = builtins.__dict__
        if len(now) != len(self._builtins) or not all(map(_is, now.values(), self._builtins.values())):
            now.update(self._builtins)

    def run(self, source: str, name: str) -> None:
        """Executes a cell. Whatever it raises is raised here, SystemExit and KeyboardInterrupt included."""
        _cells[name] = (len(source), None, [line + "\n" for line in source.split("\n")], name)
        tree = _compile(source, name, "exec", _TREE, True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        if tree.body:
            self._execute(_compile(tree, name, "exec", _FLAGS, True))
        if last is not None:
            value = self._execute(_compile(ast.Expression(last.value), name, "eval", _FLAGS, True))
            if value is not None:
                self._recorder.write(self._echo(value) + "\n")

    def _execute(self, code: CodeType) -> Any:
        """Runs compiled code, with top-level `await` in an event loop of the REPL."""
        if not code.co_flags & inspect.CO_COROUTINE:
            return _eval(code, self.names)
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(_eval(code, self.names))

    def _echo(self, value: Any) -> str:
        """The value of the last expression, as it is printed."""
        limit = self._recorder.limit
        if type(value) in (str, bytes) and len(value) > 8 * limit:
            return shorten(repr(value[: 2 * limit]), limit, len(value) + 2, repr(value[-2 * limit :]))
        return repr(value)

    def describe(self, error: BaseException) -> str:
        """A short traceback: the model's frames only, with their source lines."""
        if isinstance(error, SystemExit):
            code = "" if error.code is None else repr(error.code)
            return f"SystemExit({code}): this cell ended; the REPL and its variables stay"
        try:
            report = _TracebackException(type(error), error, error.__traceback__, compact=True)
            _drop_own_frames(report)
            text = "".join(report.format()).rstrip()
        except MemoryError:
            text = "MemoryError"
        except Exception as problem:
            text = f"{type(error).__name__} (its traceback cannot be shown: {type(problem).__name__})"
        if self._denied_hint and isinstance(error, OSError) and error.errno in (1, 2, 13, 38, -2, -3):
            text += f"\n{self._denied_hint}"
        return shorten(text, MAX_ERROR)


_usual_warning = warnings.formatwarning


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as Python shows it; without the place where that is one of our own files."""
    if filename.startswith(_OWN):
        return f"{category.__name__}: {message}\n"
    return _usual_warning(message, category, filename, lineno, line)


def _drop_own_frames(report: traceback.TracebackException) -> None:
    """Takes our own frames out of a traceback."""
    seen: set[int] = set()
    todo: list[Any] = [report]
    while todo:
        part = todo.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        kept = [frame for frame in part.stack if not frame.filename.startswith(_OWN)]
        part.stack = traceback.StackSummary.from_list(kept) if kept else None
        todo += [part.__cause__, part.__context__, *(part.exceptions or ())]


def _add_site_builtins() -> None:
    """`exit`, `quit` and `help`, which a Python started without `site` lacks."""

    def leave(code: Any = None) -> None:
        raise SystemExit(code)

    builtins.exit = builtins.quit = leave
    builtins.help = _Helper()


def deny_processes(reason: str) -> None:
    """Makes the calls that would start a process say why they are refused, instead of a bare errno."""

    def refuse(*_arguments: Any, **_keywords: Any) -> None:
        raise PermissionError(1, reason)

    for name in ("fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp"):
        if hasattr(os, name):
            setattr(os, name, refuse)
    setattr(subprocess, "_fork_exec", refuse)  # noqa: B010 (private, so type checkers do not know it)
