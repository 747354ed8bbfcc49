"""Our sandboxed REPL as the interpreter of `dspy.RLM`: `dspy.RLM(signature, interpreter_factory=RLMInterpreter)`.

State lives from one call to the next, tools run on the host, `SUBMIT` ends the run. Inputs are handed over once, so
that what code makes of them stays, and a long context costs nothing from the second call on. Tested with dspy 3.4.1.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import keyword
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from dspy.primitives.code_interpreter import CodeExecutionError, CodeInterpreterError, FinalOutput

from rlm_env.adapters.dspy_pool import SharedPool, shared_pool
from rlm_env.repl import Repl, ReplConfig, ReplError, SubError

TOOL_THREADS = 64
"""Tools of one interpreter that run at a time."""
PRELUDE = """
def _rlm_env_take(kinds, batch=llm_batch):
    import json
    values = batch([json.dumps({"input": name}) for name in kinds])
    return {name: json.loads(value) if kinds[name] == "json" else value for name, value in zip(kinds, values)}
def _rlm_env_define(tools, fields, batch=llm_batch, state=answer):
    import json
    class Submitted(BaseException):
        pass
    def call(name, args, kwargs):
        reply = batch([json.dumps({"tool": name, "args": args, "kwargs": kwargs})])[0]
        if not reply:
            raise RuntimeError(str(reply))
        return json.loads(reply)["value"]
    def tool(name):
        def run(*args, **kwargs):
            return call(name, args, kwargs)
        run.__name__ = name
        return run
    def submit(*args, **kwargs):
        if fields is None:
            if len(args) != 1 or kwargs:
                raise TypeError("SUBMIT requires one output value")
            values = {"output": args[0]}
        else:
            if args and kwargs:
                raise TypeError("SUBMIT accepts positional or keyword values, not both")
            values = dict(zip(fields, args)) if args else kwargs
            if set(values) != set(fields) or len(args) > len(fields):
                raise TypeError(f"SUBMIT takes the fields {', '.join(fields)}")
        state["content"] = json.dumps(values)
        state["ready"] = True
        raise Submitted
    return {**{name: tool(name) for name in tools}, "SUBMIT": submit}
"""


class RLMInterpreter:
    """A `dspy.primitives.code_interpreter.CodeInterpreter`: one REPL in a process without network, files and secrets.

    `tools`: name -> function of the host, callable in the code by its name, from threads too; arguments and results
    are JSON values. `output_fields`: those of `SUBMIT`, dicts with `name`; None: it takes one value. Both may be
    changed between calls, as `dspy.RLM` does. `config`: of the REPL; interpreters of the same one share a warm parent
    process, so that only the first takes time to start. `timeout`: seconds that one call may compute, waits for tools
    not included.

    Raises CodeExecutionError for mistakes of the code (after a time-out too, where the state is kept), SyntaxError for
    text that is not Python, and CodeInterpreterError where the process has died: this session is over then.
    """

    execution_instructions = (
        "The code runs in CPython, in a sandboxed process without network and files; variables persist between calls. "
        "numpy, scipy and sympy can be imported. Tools and SUBMIT are global functions."
    )

    def __init__(
        self,
        tools: dict[str, Callable[..., Any]] | None = None,
        output_fields: list[dict[str, Any]] | None = None,
        *,
        config: ReplConfig | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.tools: dict[str, Callable[..., Any]] = dict(tools or {})
        self.output_fields = output_fields
        self._config, self._timeout = config or ReplConfig(), timeout
        self._pool: SharedPool | None = None
        self._repl: Repl | None = None
        self._threads = ThreadPoolExecutor(TOOL_THREADS, "rlm-env-tool")
        self._context = contextvars.copy_context()
        self._defined: tuple[Any, ...] | None = None
        self._given: dict[str, str | tuple[str]] = {}
        """Input -> what was handed over last: a text as it is, any other value as (JSON,)."""
        self._under_way: dict[str, str] = {}
        self._over: str | None = None

    def start(self) -> None:
        """Opens the REPL. Does nothing where it is open."""
        self._check()
        if self._pool is None:
            self._pool = shared_pool(self._config)
            try:
                self._repl = self._pool.run(self._open(self._pool))
            except ReplError as error:
                raise self._end(str(error)) from error

    def execute(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        """Runs code after `variables` were set, those that are new or have changed since they were last given.

        Returns FinalOutput if it called `SUBMIT`, else what it printed and its last value, None without any.
        """
        given = self._changed(variables or {})
        self.start()
        assert self._pool is not None
        assert self._repl is not None
        self._context = contextvars.copy_context()
        try:
            return self._pool.run(self._execute(self._repl, code, given))
        except ReplError as error:
            raise self._end(str(error)) from error

    def shutdown(self) -> None:
        """Ends the session. Safe to call twice."""
        self._over = self._over or "it was shut down"
        repl, self._repl = self._repl, None
        if repl is not None and self._pool is not None:
            self._pool.run(repl.close())
        self._threads.shutdown(wait=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def __call__(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        """The same as `execute`."""
        return self.execute(code, variables)

    async def _open(self, pool: SharedPool) -> Repl:
        repl = await pool.pool.open(None, self._call_tools)
        await self._run_own(repl, PRELUDE)
        return repl

    async def _execute(self, repl: Repl, code: str, given: dict[str, str | tuple[str]]) -> Any:
        await self._hand_over(repl, given)
        await self._define(repl)
        step = await repl.run(code, timeout=self._timeout)
        if step.state_lost:
            raise self._end(step.error or "its process has died")
        if step.answer["ready"]:
            await self._run_own(repl, 'answer["ready"] = False\nanswer["content"] = ""')
            return FinalOutput(json.loads(step.answer["content"]))
        if step.error is not None:
            last = step.error.strip().splitlines()[-1]
            if last.startswith(("SyntaxError", "IndentationError", "TabError")) and "Traceback" not in step.output:
                raise SyntaxError(last)
            raise CodeExecutionError("\n".join(part for part in (step.output, step.error) if part))
        return step.output or None

    async def _hand_over(self, repl: Repl, given: dict[str, str | tuple[str]]) -> None:
        """Sets variables. Their values travel as answers of `llm_batch` do, whatever their size."""
        if not given:
            return
        kinds: dict[str, str] = {}
        for name, value in given.items():
            kinds[name], self._under_way[name] = _as_sent(value)
        await self._run_own(repl, f"globals().update(_rlm_env_take({kinds!r}))")
        self._under_way.clear()
        self._given |= given

    async def _define(self, repl: Repl) -> None:
        """Defines tools and `SUBMIT` where they have changed."""
        fields = None if self.output_fields is None else [field["name"] for field in self.output_fields]
        wanted = (tuple(self.tools), None if fields is None else tuple(fields))
        if wanted != self._defined:
            await self._run_own(repl, f"globals().update(_rlm_env_define({list(self.tools)!r}, {fields!r}))")
            self._defined = wanted

    async def _run_own(self, repl: Repl, code: str) -> None:
        step = await repl.run(code, timeout=self._timeout)
        if step.error is not None:
            raise self._end(step.error)

    async def _call_tools(self, prompts: list[Any]) -> list[str | SubError]:
        """Answers calls of tools, side by side, each in a thread and in the context of the call of `execute`."""
        return list(await asyncio.gather(*map(self._call_tool, prompts)))

    async def _call_tool(self, prompt: Any) -> str | SubError:
        try:
            call = json.loads(prompt)
            if "input" in call:
                return self._under_way[call["input"]]
            tool = self.tools[call["tool"]]
            context = self._context.copy()
            value = await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: context.run(tool, *call["args"], **call["kwargs"])
            )
            return json.dumps({"value": value}, allow_nan=False)
        except Exception as error:
            return SubError(f"{type(error).__name__}: {error}")

    def _check(self) -> None:
        if self._over is not None:
            raise CodeInterpreterError(f"this session is over: {self._over}; make a new interpreter")

    def _changed(self, variables: dict[str, Any]) -> dict[str, str | tuple[str]]:
        """Those variables that are not as they were last given. CodeInterpreterError where one cannot be set."""
        self._check()
        changed: dict[str, str | tuple[str]] = {}
        for name, value in variables.items():
            if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
                raise CodeInterpreterError(f"the variable {name!r} has no name that Python takes")
            if name in self.tools or name in ("SUBMIT", "llm_batch", "answer"):
                raise CodeInterpreterError(f"the variable {name!r} has the name of a function of the interpreter")
            try:
                given = value if type(value) is str else (json.dumps(value, allow_nan=False),)
            except (TypeError, ValueError) as error:
                raise CodeInterpreterError(f"the variable {name!r} is no JSON value: {error}") from error
            if self._given.get(name) != given:
                changed[name] = given
        return changed

    def _end(self, why: str) -> CodeInterpreterError:
        self._over = why
        return CodeInterpreterError(why)


def _as_sent(value: str | tuple[str]) -> tuple[str, str]:
    """How an input travels, "text" or "json", and the string that does."""
    if isinstance(value, tuple):
        return "json", value[0]
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates, which only JSON carries
        return "json", json.dumps(value)
    return "text", value
