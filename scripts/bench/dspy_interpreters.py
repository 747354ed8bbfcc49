#!/usr/bin/env python3
"""Our REPL as an interpreter of dspy beside those that dspy ships, under the same calls: one JSON line per figure.

    python scripts/bench/dspy_interpreters.py [--quick]

Needs `pip install 'rlm-env[dspy,repl]'`. dspy's `LocalInterpreter` (a child process without a sandbox) is always
measured, its `PythonInterpreter` (Deno and Pyodide) after `pip install deno`. Every interpreter is started, told to run
the same cells, and shut down, in turns, so that a noisy moment hits all; then each runs the same `dspy.RLM` with an LM
that answers from a list. Medians of seconds, and `ratio`: to ours in the same run.

`keeps_changed_input` says whether `context = context[:10]` still holds in the next cell, given the same inputs, as
`dspy.RLM` gives them before every cell. dspy's runner for Deno takes one function from an address that is no package
registry's; an import map gives it the same function from here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dspy
from dspy.primitives import LocalInterpreter, PythonInterpreter
from openai.types.chat import ChatCompletion

from rlm_env.adapters.dspy_interpreter import RLMInterpreter

MEGABYTE = 2**20
STEPS = 5
"""Cells of one kind in a session; the median of their seconds is one run's."""
STD_IO = "https://deno.land/std@0.186.0/io/mod.ts"
READ_LINES = """
export async function* readLines(_reader) {
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\\n");
    rest = lines.pop();
    yield* lines;
  }
}
"""
CELLS = (
    "kept = len(context)",
    "summary = llm_query(context[:40])",
    "SUBMIT(f'{kept} {summary}')",
)
"""What the LM writes under `dspy.RLM`."""


class ListedLM(dspy.BaseLM):
    """Writes CELLS, one a turn; answers every other prompt with one word."""

    def __init__(self) -> None:
        super().__init__(model="listed", cache=False)
        self._turn = 0

    def forward(self, prompt: str | None = None, messages: list[dict[str, Any]] | None = None, **_: Any) -> Any:
        text = prompt or (messages or [{}])[-1]["content"]
        if "[[ ## code ## ]]" in text or "`code`" in text:
            cell = CELLS[self._turn % len(CELLS)]
            self._turn += 1
            parts = ("reasoning", "next"), ("code", f"```python\n{cell}\n```"), ("completed", "")
            text = "\n\n".join(f"[[ ## {name} ## ]]\n{body}" for name, body in parts)
        else:
            text = "word"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        whole = {"id": "listed", "object": "chat.completion", "created": 0, "model": "listed", "choices": [choice]}
        return ChatCompletion.model_validate(whole | {"usage": usage})


def double(x: int) -> int:
    """The tool of the bench."""
    return 2 * x


def seconds_of(interpreter: Any, code: str, inputs: dict[str, Any], expected: str) -> float:
    begin = time.perf_counter()
    said = interpreter.execute(code, inputs)
    seconds = time.perf_counter() - begin
    if str(said).strip() != expected:
        raise RuntimeError(f"{type(interpreter).__name__} answered {said!r} to {code!r}, not {expected!r}")
    return seconds


def session(make: Callable[..., Any], context: str) -> dict[str, float | bool]:
    """One interpreter from its start to its end."""
    begin = time.perf_counter()
    interpreter = make(tools={"double": double})
    try:
        seconds_of(interpreter, "print(1)", {}, "1")
        found: dict[str, float | bool] = {"start and first step": time.perf_counter() - begin}

        def several(code: str, inputs: dict[str, Any], expected: Callable[[int], str]) -> float:
            return statistics.median(seconds_of(interpreter, code, inputs, expected(i)) for i in range(STEPS))

        seconds_of(interpreter, "state = 0\nprint(state)", {}, "0")
        found["a step, with state from the one before"] = several("state += 1\nprint(state)", {}, lambda i: str(i + 1))
        found["a step with a tool call"] = several("print(double(x=4))", {}, lambda _: "8")
        size, inputs = str(len(context)), {"context": context}
        found["the first step with 1 MB of input"] = seconds_of(interpreter, "print(len(context))", inputs, size)
        found["each further step with that input"] = several("print(len(context))", inputs, lambda _: size)
        interpreter.execute("context = context[:10]", inputs)
        found["keeps_changed_input"] = str(interpreter.execute("print(len(context))", inputs)).strip() == "10"
    finally:
        begin = time.perf_counter()
        interpreter.shutdown()
    found["shutdown"] = time.perf_counter() - begin
    return found


def under_rlm(make: Callable[..., Any], context: str) -> float:
    """Seconds of three turns of `dspy.RLM`, one of them with a sub-call."""
    dspy.configure(lm=ListedLM())
    begin = time.perf_counter()
    answer = dspy.RLM("context, question -> answer", interpreter_factory=make)(context=context, question="?").answer
    seconds = time.perf_counter() - begin
    if answer != f"{len(context)} word":
        raise RuntimeError(f"dspy.RLM answered {answer!r}")
    return seconds


def deno_interpreter(folder: Path) -> Callable[..., Any] | None:
    """Makes dspy's own interpreter; None where there is no Deno."""
    try:
        from deno import find_deno_bin  # type: ignore[import-not-found]

        find_deno_bin()
    except (ImportError, FileNotFoundError):
        return None
    script, imports = folder / "read_lines.js", folder / "imports.json"
    script.write_text(READ_LINES, "utf-8")
    imports.write_text(json.dumps({"imports": {STD_IO: script.as_uri()}}), "utf-8")
    program, run, *arguments = PythonInterpreter().deno_command
    return partial(PythonInterpreter, deno_command=[program, run, f"--import-map={imports}", *arguments])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two runs of each instead of seven")
    runs = 2 if parser.parse_args().quick else 7
    context = ("the quick brown fox jumps over the lazy dog\n" * (MEGABYTE // 44 + 1))[:MEGABYTE]
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    keeps: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        systems: dict[str, Callable[..., Any]] = {"rlm-env": RLMInterpreter, "dspy LocalInterpreter": LocalInterpreter}
        if deno := deno_interpreter(Path(folder)):
            systems["dspy PythonInterpreter (Deno)"] = deno
        for run in range(runs + 1):
            for name, make in systems.items():
                found = session(make, context)
                keeps[name] = bool(found.pop("keeps_changed_input"))
                found["three turns of dspy.RLM on 1 MB"] = under_rlm(make, context)
                for what, value in found.items() if run else ():  # the first run warms caches up
                    seconds[what][name].append(value)
    for what, by_system in seconds.items():
        ours = statistics.median(by_system["rlm-env"])
        for name, values in by_system.items():
            median = statistics.median(values)
            line = {"bench": what, "system": name, "median_s": round(median, 6), "runs": len(values)}
            print(json.dumps(line | {"ratio": round(median / ours, 3)}), flush=True)
    print(json.dumps({"bench": "keeps_changed_input", **keeps}))


if __name__ == "__main__":
    main()
