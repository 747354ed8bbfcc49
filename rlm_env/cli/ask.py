"""The command `rlm-env ask`: a question about files, answered on standard output. The work is in `rlm_env/asking/`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.cli.common import (
    ENGINE_FLAGS,
    JUDGE_FLAGS,
    add_command,
    add_engine_flags,
    add_set_flag,
    overrides,
    set_keys,
)
from rlm_env.readable import visible
from rlm_env.repl.wire import sanitize
from rlm_env.runs.console import say, say_stopped
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.interrupt import Terminated, interruptible

if TYPE_CHECKING:
    from rlm_env.asking.config import AskConfig
    from rlm_env.asking.display import Display
    from rlm_env.asking.documents import Documents
    from rlm_env.rollout import Rollout

EXIT_NO_ANSWER, EXIT_ENGINE = 1, 3
EXAMPLES = """\
  rlm-env ask "Which of these contracts end this year?" contracts/ --model gpt-5-mini \\
      --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY
  rlm-env ask "Where is the retry policy?" src README.md --include '*.py' --model Qwen/Qwen3-8B
  journalctl -b | rlm-env ask "What failed first?" - --model Qwen/Qwen3-8B --json
"""


def add_ask(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    from rlm_env.asking.config import AskConfig

    command = add_command(
        commands,
        "ask",
        summary="ask a question about files, folders or standard input",
        description="Answers a question about texts of any length with an RLM. The answer goes to standard output, all "
        "else to standard error. Of a folder, what git ignores, hidden secrets (.env, keys), links and files that are "
        "no text are left out; PDF, HTML and notebooks become text (pip install 'rlm-env[files]'). Ctrl-C prints the "
        "answer so far.",
        examples=EXAMPLES,
        keys=set_keys(AskConfig, "docs/evaluating-options.md", JUDGE_FLAGS),
    )
    add = command.add_argument
    add("question", metavar="QUESTION", help="the question")
    add("paths", nargs="*", metavar="PATH", help="files and folders, or - for standard input (default: - if piped)")
    add_engine_flags(command)
    add = command.add_argument_group("files of folders").add_argument
    what = "only these files of folders (default: all that are text)"
    add("--include", action="append", default=[], metavar="PATTERN", help=f"{what}; as in .gitignore; repeatable")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="not these files; repeatable")
    add = command.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print answer, stop reason, tokens, cost and seconds as one JSON object")
    add("--quiet", action="store_true", help="show nothing while it works")
    add("--output", type=Path, metavar="FILE.jsonl", help="also store the rollout (default: not stored)")
    add_set_flag(command, "rollout.max_turns=8")
    command.set_defaults(run=_ask)


def _ask(arguments: argparse.Namespace) -> int:
    from rlm_env.asking.config import ask_config
    from rlm_env.asking.display import Display
    from rlm_env.asking.documents import STDIN, read_documents
    from rlm_env.evals.setup import role_prices

    config = ask_config(overrides(arguments, ENGINE_FLAGS), "command line")
    prices = role_prices(config)
    if not arguments.question.strip():
        raise ConfigError("the question is empty")
    piped = sys.stdin is not None and not sys.stdin.isatty()
    paths = arguments.paths or ([STDIN] if piped else [])
    documents = read_documents(paths, arguments.include, arguments.exclude)
    _check_output(arguments.output)
    console = Console(stderr=True, quiet=arguments.quiet)
    _say_documents(console, documents)
    with Display(console, prices, verbose=not arguments.quiet) as display:
        code = _run(config, arguments.question, documents, console, display)
    if display.rollout is not None and arguments.output is not None:
        _store(display.rollout, documents, arguments.output)
        say(console, f"stored in {arguments.output}", "dim")
    _print(display, code, as_json=arguments.json)
    if display.rollout is not None:
        say(console, display.totals() + _how_it_ended(display.rollout), "dim")
    return code


def _run(config: AskConfig, question: str, documents: Documents, console: Console, display: Display) -> int:
    """Asks, and returns the exit code. What can be known about the rollout is then in the display."""
    from rlm_env.asking.ask import open_engines, rollout_options
    from rlm_env.llm.base import EngineRefused, EngineUnavailable, LLMError
    from rlm_env.solving import solve_as_configured

    async def work() -> None:
        async with open_engines(config, console) as engines:
            options = rollout_options(config)
            await solve_as_configured(question, documents.context, engines.root, engines.sub, options, on_event=display)
            if display.failed_at_once:  # a small question tells which option is wrong, if one is
                await engines.root.preflight()

    try:
        asyncio.run(interruptible(work()))
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        return say_stopped(console, stop)
    except EngineUnavailable as error:
        said = "refuses" if isinstance(error, EngineRefused) else "does not answer"
        say(console, f"the engine {said}: {error}", "red")
        return EXIT_ENGINE
    except LLMError:  # of the small question: the rollout's own error says as much
        pass
    assert display.rollout is not None
    if display.rollout.error is not None:
        say(console, f"it failed: {display.rollout.error}", "red")
    return 0 if display.answer.strip() else EXIT_NO_ANSWER


def _print(display: Display, code: int, *, as_json: bool) -> None:
    rollout = display.rollout
    if as_json:
        sys.stdout.write(_written(json.dumps(_result(display), ensure_ascii=False)) + "\n")
    elif display.answer.strip():
        sys.stdout.write(_written(display.answer.rstrip("\n")) + "\n")
    elif code != EXIT_ENGINE and (code == 0 or rollout is not None):
        say(Console(stderr=True), "there is no answer", "yellow")


def _written(text: str) -> str:
    """What a model has written, as it goes to standard output: as it is into a file or a pipe, but for lone surrogates,
    which cannot be encoded; on a terminal without what would steer it."""
    return visible(text) if sys.stdout.isatty() else sanitize(text)


def _result(display: Display) -> dict[str, Any]:
    """What `--json` prints."""
    rollout = display.rollout
    return {
        "answer": display.answer,
        "stop_reason": rollout and rollout.stop_reason,
        "error": rollout and rollout.error,
        "turns": display.turns,
        "sub_calls": display.asked,
        "sub_calls_failed": display.failed,
        "root_tokens": {"prompt": display.root.prompt_tokens, "completion": display.root.completion_tokens},
        "sub_tokens": {"prompt": display.sub.prompt_tokens, "completion": display.sub.completion_tokens},
        "cost_usd": display.cost,
        "seconds": rollout and round(rollout.timing.total, 3),
    }


def _how_it_ended(rollout: Rollout) -> str:
    from rlm_env.rollout import StopReason

    if rollout.stop_reason is StopReason.READY:
        return ""
    return f"; ended by {rollout.stop_reason}" + (": the answer so far" if rollout.answer.strip() else "")


def _say_documents(console: Console, documents: Documents) -> None:
    left_out = ", ".join(f"{reason}: {count:,}" for reason, count in documents.left_out_by_reason().items())
    kind = "1 file" if documents.files == 1 else f"{documents.files:,} files"
    say(console, f"{kind}, {documents.size:,} characters" + (f" (left out: {left_out})" if left_out else ""), "dim")


def _check_output(path: Path | None) -> None:
    """Finds out before anything is paid. Raises ConfigError."""
    if path is None:
        return
    if path.exists():
        raise ConfigError(f"--output {path} exists already; name another file")
    if not path.parent.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {path.parent}")


def _store(rollout: Rollout, documents: Documents, path: Path) -> None:
    from rlm_env.rollout import write_rollouts

    write_rollouts(path, [rollout])
