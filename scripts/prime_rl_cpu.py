"""Trains tiny-rlm on one of our environments with the real prime-rl, on CPUs: a proof that both fit, no way to train.

    PRIME_RL_SRC=/path/to/prime-rl python scripts/prime_rl_cpu.py [--steps 3] [--out FOLDER]

prime-rl's are the orchestrator, the environment server, the transport of micro batches and the loss. Ours are a real
vLLM, and in place of the trainer's processes for GPUs a loop of a hundred lines (`prime_rl_proof/trainer.py`). It ends
with a table: for each step what was trained, how far the trainer's log-probabilities are from the engine's (which are
equal to rounding where tokens, masks and weights are right), and how stale the samples were.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import tomli_w
from aiohttp import ClientSession, web
from rich.console import Console
from rich.table import Table

from prime_rl_proof.checkout import require_packages, source_folder
from rlm_env.llm import VLLMServer
from rlm_env.runs.interrupt import interruptible
from rlm_env.runs.models import model_folder

ENVIRONMENT = {
    "taskset": {
        "id": "oolong-rlm",
        "split": "train",
        "num_tasks": 64,
        "options": {"vocabulary": "easy", "lengths": [512]},
    },
    "agent": {"harness": {"id": "oolong-rlm", "profile": "tiny-rlm"}, "runtime": {"type": "subprocess"}},
}
LIMIT = 900.0
"""Seconds for the whole run."""


class RunFailed(Exception):
    """A process of the run has failed, or took too long."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def admin_routes(server: VLLMServer) -> AsyncIterator[str]:
    """The routes that prime-rl asks of its own vLLM for new weights, on a stock one. Pausing is left out: requests in
    flight go on with the new weights."""

    async def handle(request: web.Request) -> web.Response:
        if request.method == "GET":
            async with ClientSession() as session, session.get(server.root_url + request.path) as reply:
                return web.Response(body=await reply.read(), status=reply.status, content_type=reply.content_type)
        body = json.loads(await request.text() or "{}")
        if request.path == "/update_weights":
            await server.reload_weights(body["weight_dir"])
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def write_configs(out: Path, model: Path, server: VLLMServer, admin: str, steps: int) -> None:
    """The files of the environment server and the orchestrator. The renderer loads the model by its served name, which
    is a folder of `out` too."""
    port = free_port()
    (out / server.served_name).symlink_to(model)
    serving = {"env": ENVIRONMENT, "serve": {"address": f"tcp://127.0.0.1:{port}"}}
    (out / "env.toml").write_text(tomli_w.dumps(serving))
    orchestrator: dict[str, Any] = {
        "max_steps": steps,
        "seq_len": 1024,
        "batch_size": 16,
        "group_size": 4,
        "max_off_policy_steps": 4,
        "concurrency": {"max_inflight": 48},
        "output_dir": str(out),
        "env_server_base_port": port,
        "collect_inference_metrics": False,
        "model": {
            "name": server.served_name,
            "client": {"base_url": server.base_url, "admin_base_url": [admin]},
        },
        "tokenizer": {"name": str(model)},
        "renderer": {"name": "default"},
        "train": {
            "sampling": {"temperature": 1.0, "max_completion_tokens": 256},
            "source": [{"name": "oolong", "env": ENVIRONMENT}],
        },
        "weight_broadcast": {"type": "filesystem"},
        "rollout_transport": {"type": "filesystem"},
        "monitors": {"file": {}},
    }
    (out / "orchestrator.toml").write_text(tomli_w.dumps(orchestrator))


@contextlib.asynccontextmanager
async def process(out: Path, name: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """One process of the run; its output goes to OUT/NAME.log, and it is ended with the block."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    own = {"HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_API_KEY": "EMPTY"}  # no compiler is needed
    environment = {**os.environ, **own, "PYTHONPATH": path}
    with (out / f"{name}.log").open("wb") as log:
        command = (sys.executable, "-m", *arguments)
        running = await asyncio.create_subprocess_exec(*command, cwd=out, env=environment, stdout=log, stderr=log)
        try:
            yield running
        finally:
            if running.returncode is None:
                running.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(running.wait(), 20)
            if running.returncode is None:
                running.kill()
                await running.wait()


async def until_done(out: Path, running: dict[str, asyncio.subprocess.Process]) -> None:
    """Returns when the trainer and the orchestrator have ended well. Raises RunFailed, with the end of its log, when
    one of the processes fails."""
    while any(running[name].returncode is None for name in ("trainer", "orchestrator")):
        for name, one in running.items():
            if one.returncode not in (None, 0):
                raise RunFailed(f"{name} failed ({one.returncode}):\n{(out / f'{name}.log').read_text()[-4000:]}")
        await asyncio.sleep(0.5)


async def run(out: Path, steps: int, console: Console) -> None:
    model = model_folder("tiny-rlm")
    async with contextlib.AsyncExitStack() as stack:
        console.print("starting vLLM")
        server = VLLMServer(model, served_name="tiny-rlm", scale_out=True, log_path=out / "vllm.log")
        await stack.enter_async_context(server)
        admin = await stack.enter_async_context(admin_routes(server))
        write_configs(out, model, server, admin, steps)
        console.print(f"prime-rl runs {steps} steps; logs and micro batches: {out}")
        commands = {
            "env_server": ("prime_rl_proof.entry", "env_server", "@", "env.toml"),
            "trainer": ("prime_rl_proof.trainer", str(out), str(model), str(steps)),
            "orchestrator": ("prime_rl_proof.entry", "orchestrator", "@", "orchestrator.toml"),
        }
        running = {name: await stack.enter_async_context(process(out, name, *c)) for name, c in commands.items()}
        try:
            await asyncio.wait_for(until_done(out, running), LIMIT)
        except TimeoutError:
            raise RunFailed(f"not done after {LIMIT:g} s; see the logs in {out}") from None


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(out: Path) -> Table:
    """What the run has shown, step by step."""
    shown = Table(title="prime-rl on CPUs")
    heads = (
        "step",
        "samples",
        "trained tokens",
        "error share",
        "branches",
        "off-policy steps",
        "|log-prob difference|",
    )
    for head in heads:
        shown.add_column(head, justify="right")
    metrics = {entry["step"]: entry for entry in lines(out / "metrics.jsonl") if "progress/rollouts" in entry}
    for entry, (_, told) in zip(lines(out / "trainer.jsonl"), sorted(metrics.items()), strict=False):
        mean, most = entry["logprob_difference_mean"], entry["logprob_difference_max"]
        shown.add_row(
            str(entry["step"]),
            str(entry["samples"]),
            f"{entry['trained_tokens']:,}",
            f"{told['train/agg/all/has_error/mean']:.1%}",
            f"{told['train/agg/effective/num_branches/mean']:.1f}",
            f"{told['off_policy/mean']:.1f}, at most {told['off_policy/max']:.0f}",
            f"{mean:.1e}, at most {most:.1e}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a new folder; default: one in the temporary folder")
    arguments = parser.parse_args()
    source_folder()
    require_packages()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="rlm-env-prime-rl-"))
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        asyncio.run(interruptible(run(out.resolve(), arguments.steps, console)))
    except RunFailed as error:
        sys.exit(str(error))
    console.print(table(out.resolve()))


if __name__ == "__main__":
    main()
