"""The command `rlm-env serve`: an OpenAI-compatible endpoint in front of a model. The work is in `asking/serve.py`."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.cli.common import (
    ENGINE_FLAGS,
    JUDGE_FLAGS,
    add_command,
    add_engine_flags,
    add_set_flag,
    overrides,
    port_number,
    set_keys,
)
from rlm_env.runs.console import say, say_stopped
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.interrupt import Terminated, interruptible

if TYPE_CHECKING:
    from rlm_env.asking.config import AskConfig

THRESHOLD = 20_000
EXAMPLES = """\
  rlm-env serve --model Qwen/Qwen3-8B --port 8080
  rlm-env serve --model gpt-5-mini --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY --threshold 200000
  curl http://127.0.0.1:8080/v1/models
"""


def add_serve(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    from rlm_env.asking.config import AskConfig

    command = add_command(
        commands,
        "serve",
        summary="serve an OpenAI-compatible endpoint that answers long requests with an RLM",
        description="Serves /v1/chat/completions and /v1/models on 127.0.0.1. A short request goes to the model as it "
        "is, a long one to an RLM of that model; answers are streamed where a client asks for it. As the model, "
        "NAME:rlm asks for the RLM and NAME:llm for the model whatever the length.",
        examples=EXAMPLES,
        keys=set_keys(AskConfig, "docs/evaluating-options.md", JUDGE_FLAGS),
    )
    add_engine_flags(command)
    add = command.add_argument_group("the server").add_argument
    add("--port", type=port_number, default=8080, metavar="N", help="the port; 0: any free one (default: 8080)")
    add(
        "--threshold",
        type=int,
        default=THRESHOLD,
        metavar="CHARACTERS",
        help=f"requests of this length go to the RLM (default: {THRESHOLD:,})",
    )
    add_set_flag(command, "rollout.max_turns=8")
    command.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from rlm_env.asking.config import ask_config

    config = ask_config(overrides(arguments, ENGINE_FLAGS), "command line")
    if arguments.threshold < 1:
        raise ConfigError("--threshold must be at least 1 character")
    console = Console(stderr=True)
    try:
        asyncio.run(interruptible(_run(config, arguments.port, arguments.threshold, console)))
    except (RunStopped, KeyboardInterrupt, Terminated) as stop:
        return say_stopped(console, stop)
    return 0


async def _run(config: AskConfig, port: int, threshold: int, console: Console) -> None:
    """Serves until it is interrupted, or a local vLLM dies. Raises ConfigError and RunStopped."""
    from rlm_env.asking.ask import open_engines, rollout_options
    from rlm_env.asking.serve import RLMServer
    from rlm_env.llm.base import EngineUnavailable
    from rlm_env.runs.engines import engine_stop
    from rlm_env.scaffolds.config import RLMConfig

    options = RLMConfig.model_validate(rollout_options(config))
    async with open_engines(config, console) as engines:
        server = RLMServer(engines, options, threshold, port)
        try:
            async with server.running():
                name = engines.root.name
                say(
                    console,
                    f"{server.base_url} serves {name}, from {threshold:,} characters on by an RLM. Ctrl-C ends it",
                )
                await engines.watch()
        except OSError as error:
            raise ConfigError(f"--port {port} cannot be used: {error.strerror}") from error
        except EngineUnavailable as error:
            raise engine_stop(error, engines) from error
