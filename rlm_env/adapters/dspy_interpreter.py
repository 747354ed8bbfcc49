"""Our sandboxed REPL as the interpreter of `dspy.RLM`: `dspy.RLM(signature, interpreter_factory=RLMInterpreter)`.

State lives from one call to the next, tools run on the host, `SUBMIT` ends the run. Inputs are handed over once, so
that what code makes of them stays, and a long context costs nothing from the second call on. Tested with dspy 3.4.1.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import keyword
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from dspy.primitives.code_interpreter import CodeExecutionError, CodeInterpreterError, FinalOutput

from rlm_env.repl import Repl, ReplConfig, ReplError, ReplPool, SubError

Result = TypeVar("Result")
TAKE_INPUTS = """
_rlm_env_inputs = context
del context
globals().update(_rlm_env_inputs)
del _rlm_env_inputs
"""
PRELUDE = """
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
    changed between calls, as `dspy.RLM` does. `config`: of the REPL. `timeout`: seconds that one call may compute,
    waits for tools not included.

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pool: ReplPool | None = None
        self._repl: Repl | None = None
        self._context = contextvars.copy_context()
        self._defined: tuple[Any, ...] | None = None
        self._sent: dict[str, str] = {}
        self._over: str | None = None

    def start(self) -> None:
        """Starts the sandbox; the REPL is opened with the first inputs. Does nothing where it has started."""
        self._check()
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="rlm-env", daemon=True)
            self._thread.start()
            self._pool = ReplPool(self._config)
            self._run(self._pool.__aenter__())

    def execute(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        """Runs code after `variables` were set, those that are new or have changed since they were last given.

        Returns FinalOutput if it called `SUBMIT`, else what it printed and its last value, None without any.
        """
        variables = dict(variables or {})
        self._check_variables(variables)
        self.start()
        self._context = contextvars.copy_context()
        try:
            return self._run(self._execute(code, variables))
        except ReplError as error:
            raise self._end(str(error)) from error

    def shutdown(self) -> None:
        """Ends the session. Safe to call twice."""
        self._over = self._over or "it was shut down"
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._close(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            if self._thread is not None:
                self._thread.join()

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

    async def _execute(self, code: str, variables: dict[str, Any]) -> Any:
        repl = await self._with_inputs(variables)
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

    async def _with_inputs(self, variables: dict[str, Any]) -> Repl:
        """The REPL with these variables set. The first go in as its context, whatever their size."""
        texts = {name: json.dumps(value, allow_nan=False) for name, value in variables.items()}
        new = {name: variables[name] for name, text in texts.items() if self._sent.get(name) != text}
        if self._repl is None:
            assert self._pool is not None
            self._repl = await self._pool.open(new, self._call_tools)
            await self._run_own(self._repl, TAKE_INPUTS)
        elif new:
            await self._run_own(
                self._repl, f"import json as _json\nglobals().update(_json.loads({json.dumps(json.dumps(new))}))"
            )
        self._sent |= texts
        return self._repl

    async def _define(self, repl: Repl) -> None:
        """Defines tools and `SUBMIT` where they have changed."""
        fields = None if self.output_fields is None else [field["name"] for field in self.output_fields]
        wanted = (tuple(self.tools), None if fields is None else tuple(fields))
        if wanted != self._defined:
            if self._defined is None:
                await self._run_own(repl, PRELUDE)
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
            tool = self.tools[call["tool"]]
            context = self._context.copy()
            value = await asyncio.to_thread(lambda: context.run(tool, *call["args"], **call["kwargs"]))
            return json.dumps({"value": value}, allow_nan=False)
        except Exception as error:
            return SubError(f"{type(error).__name__}: {error}")

    def _check(self) -> None:
        if self._over is not None:
            raise CodeInterpreterError(f"this session is over: {self._over}; make a new interpreter")

    def _check_variables(self, variables: dict[str, Any]) -> None:
        self._check()
        for name, value in variables.items():
            if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
                raise CodeInterpreterError(f"the variable {name!r} has no name that Python takes")
            if name in self.tools or name in ("SUBMIT", "llm_batch", "answer"):
                raise CodeInterpreterError(f"the variable {name!r} has the name of a function of the interpreter")
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise CodeInterpreterError(f"the variable {name!r} is no JSON value: {error}") from error

    def _end(self, why: str) -> CodeInterpreterError:
        self._over = why
        return CodeInterpreterError(why)

    async def _close(self) -> None:
        if self._repl is not None:
            await self._repl.close()
        if self._pool is not None:
            await self._pool.__aexit__(None, None, None)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        assert self._loop is not None
        done: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return done.result()
        except KeyboardInterrupt:
            done.cancel()
            raise
