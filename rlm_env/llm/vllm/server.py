"""A local vLLM as an async context manager: started, health-checked, given new weights, and stopped in every case.

    async with VLLMServer("models/Qwen3-8B") as server:
        policy = server.policy(renderer="qwen3")

Stock vLLM 0.30 on CUDA and on CPU, one process tree per server. Its log is a file, and no process of it outlives ours,
however ours ends; what is left where the supervisor was killed too, the next start ends (`leftovers.py`). Not covered:
several nodes, the routes of an engine that runs (`control.py`), engines that somebody else started
(`TokenPolicy.connect`, `OpenAIChat`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rlm_env.llm.base import LLMError
from rlm_env.llm.vllm.control import VLLMControl
from rlm_env.llm.vllm.install import (
    VLLMStartError,
    check_installed,
    default_environment,
    is_cpu_build,
    is_tiny_on_cpu,
    vllm_version,
)
from rlm_env.llm.vllm.leftovers import SCRATCH, end_leftover, end_leftovers
from rlm_env.llm.vllm.log import describe_failure, read_log, startup_stage
from rlm_env.llm.vllm.model_folder import find_model

Progress = Callable[[str, float], None]
"""Called about four times a second while the engine starts, with the stage it has reached and the seconds so far."""

GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL when the engine is stopped."""
POLL_SECONDS = 0.25
"""Between two looks at an engine that starts."""


class VLLMServer(VLLMControl):
    """One vLLM process tree that serves `model` on 127.0.0.1.

    `model`: a folder with `config.json`, weights and a tokenizer, or a Hub id that is in the local cache.
    `port`: 0 picks a free one. `max_model_len`: the window; None leaves it to the model's config.
    `eager`: no compilation. None means eager on CPU, where compiling costs 30 to 45 seconds and a C++ compiler
    for 1.3 to 1.6 times the tokens per second of a small model, and vLLM's own choice on CUDA.
    `scale_out`: also serve `/inference/v1/generate`, which takes token ids and which `verifiers` and `prime-rl` ask.
    `devices`: the GPUs that it sees, numbers or ids as in CUDA_VISIBLE_DEVICES; None: those that we see.
    `log_path`: file for stdout and stderr; None chooses one in the temporary folder.
    `env`: more environment variables for the engine. `niceness`: 0 to 19, the engine's scheduling priority where others
    need the same cores (19: lowest). `progress`: called while it starts.

    Raises ModelNotFound when it is made, VLLMStartError when it is made (the port) or entered. The methods that
    change the engine raise LLMError if it refuses, EngineUnavailable if it is dead.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        port: int = 0,
        served_name: str | None = None,
        max_model_len: int | None = None,
        dtype: str = "auto",
        seed: int = 0,
        eager: bool | None = None,
        scale_out: bool = False,
        devices: Sequence[int | str] | None = None,
        log_path: str | os.PathLike[str] | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        startup_timeout: float = 900.0,
        niceness: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.folder = find_model(model)
        self.port = _claim_port(port)
        self.log_path = Path(log_path or Path(tempfile.gettempdir()) / f"rlm-env-vllm-{uuid.uuid4().hex}.log")
        super().__init__(
            f"http://127.0.0.1:{self.port}",
            served_name or self.folder.name,
            self.folder.path,
            hint=f"its log: {self.log_path}",
            max_model_len=max_model_len,  # that was asked for; once the engine runs, the one that it has
            engine_version=vllm_version() or None,
            logprobs_mode="processed_logprobs",
            repacks_heads=is_cpu_build(),
        )
        self.dtype = dtype
        self.seed = seed
        self.eager = is_cpu_build() if eager is None else eager
        self.scale_out = scale_out
        self.extra_args = tuple(extra_args)
        self.devices = devices
        self.env = dict(env or {})
        self.startup_timeout = startup_timeout
        self.niceness = niceness
        self.progress = progress
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._scratch = Path()
        """Of the running engine, for sockets and the like, which vLLM does not remove."""

    @property
    def alive(self) -> bool:
        """Whether the process runs (not whether it answers)."""
        return self._supervisor is not None and self._supervisor.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The engine's exit status (128 + N after signal N), None while it runs or before it was started."""
        return self._supervisor.poll() if self._supervisor is not None else None

    async def __aenter__(self) -> Self:
        """Starts the engine and returns when it answers. After an error or a cancellation no process is left."""
        if self.alive:
            raise VLLMStartError(f"this server already runs on port {self.port}")
        try:
            await asyncio.to_thread(end_leftovers)  # of earlier runs; they hold memory
            self._spawn()
            await self._wait_until_ready()
        except BaseException:
            await self._shut_down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._shut_down()

    def stop(self) -> None:
        """Ends the whole process tree; returns when it is gone. Safe to call twice, and from another thread."""
        supervisor = self._supervisor
        if supervisor is None or supervisor.stdin is None:
            return
        supervisor.stdin.close()  # the supervisor waits for this
        while True:
            try:
                supervisor.wait(GRACE_SECONDS + 10)
                break
            except subprocess.TimeoutExpired:
                supervisor.kill()
            except KeyboardInterrupt:
                continue  # a second Ctrl-C must not leave an orphan
        end_leftover(self._scratch)  # there is something where the supervisor was killed

    async def _shut_down(self) -> None:
        """Stops the engine, also where this task is cancelled meanwhile."""
        stopping = asyncio.ensure_future(asyncio.to_thread(self.stop))
        try:
            await asyncio.shield(stopping)  # the thread goes on if this task is cancelled meanwhile
        finally:
            await self.aclose()

    def _spawn(self) -> None:
        """Starts the process, behind `supervise.py`, with its log in a file."""
        check_installed()
        _claim_port(self.port)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_bytes(b"")
        supervise = Path(__file__).with_name("supervise.py")
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
        self._supervisor = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(supervise)),
                *(str(os.getpid()), str(GRACE_SECONDS), str(self.niceness), str(self.log_path), str(self._scratch)),
                *self._command(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=default_environment(self.folder, self.eager, self.devices) | self.env,
            start_new_session=True,  # Ctrl-C in a terminal reaches us only, and we stop it
        )

    def _command(self) -> list[str]:
        """The command line of vLLM, with every argument that we give it."""
        folder = self.folder
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(folder.path), "--served-model-name", self.served_name]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--seed", str(self.seed)]
        command += ["--logprobs-mode", "processed_logprobs", "--enable-prompt-tokens-details"]
        command += ["--disable-uvicorn-access-log"]
        dtype = self.dtype
        if dtype == "auto" and is_cpu_build() and folder.dtype == "float32":
            dtype = "float32"  # vLLM's own "auto" would lower it to 16 bits
        command += ["--dtype", dtype]
        if self.max_model_len is not None:
            command += ["--max-model-len", str(self.max_model_len)]
        if self.eager:
            command += ["--enforce-eager"]
        if self.scale_out:
            command += ["--enable-scale-out"]
        command += ["--worker-extension-cls", "rlm_env.llm.vllm.worker.WorkerExtension"]
        if is_tiny_on_cpu(folder):
            command += ["--distributed-executor-backend", "uni"]
        return [*command, *self.extra_args]

    async def _wait_until_ready(self) -> None:
        """Polls until the engine serves our model; VLLMStartError if it dies or takes too long."""
        started = time.monotonic()
        while not await self._serves_our_model():
            log = read_log(self.log_path)
            now, seconds = startup_stage(log), time.monotonic() - started
            failure = None
            if not self.alive:
                failure = f"vLLM died while {now} (exit status {self.exit_code})"
            elif seconds > self.startup_timeout:
                failure = f"vLLM was still {now} after {seconds:.0f} s (startup_timeout)"
            if failure is not None:
                raise VLLMStartError(failure + describe_failure(log, self.log_path))
            if self.progress is not None:
                self.progress(now, seconds)
            await asyncio.sleep(POLL_SECONDS)

    async def _serves_our_model(self) -> bool:
        """Whether the engine is healthy and lists our model."""
        try:
            async with asyncio.timeout(5):
                await self._control.get_raw("/health")
                card = (await self._control.get("/v1/models"))["data"][0]
        except (LLMError, TimeoutError, LookupError, TypeError):
            return False
        if card["id"] != self.served_name:
            raise VLLMStartError(f"port {self.port} is answered by another server, which serves {card['id']!r}")
        self.max_model_len = card.get("max_model_len", self.max_model_len)
        return True


def _claim_port(port: int) -> int:
    """The port itself if it is free, or a free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise VLLMStartError(
                f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): stop what listens there, or give "
                "port=0 for a free one"
            ) from None
        return probe.getsockname()[1]
