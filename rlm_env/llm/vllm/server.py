"""A local vLLM as a context manager: started, health-checked, given new weights, and stopped, always.

    async with VLLMServer("models/Qwen3-8B") as server:
        policy = server.policy(renderer="qwen3")

Covered: stock vLLM 0.30 on CUDA and on CPU, one process tree per server, its log in a file, no orphan however
this process ends. Not covered: several nodes, and engines that somebody else started (`TokenPolicy.connect`,
`OpenAIChat`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rlm_env.llm.base import EngineUnavailable, LLMError
from rlm_env.llm.vllm.install import (
    VLLMStartError,
    check_installed,
    default_environment,
    is_cpu_build,
    is_tiny_on_cpu,
    vllm_version,
)
from rlm_env.llm.vllm.log import explain, read_log, stage
from rlm_env.llm.vllm.model_folder import ModelFolder, find_model

if TYPE_CHECKING:
    from rlm_env.llm.token_policy import TokenPolicy

Progress = Callable[[str, float], None]
"""Called about four times a second while the engine starts, with what it is doing and the seconds so far."""

GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL when the engine is stopped."""


class VLLMServer:
    """One vLLM process tree that serves `model` on 127.0.0.1.

    `model`: a folder with `config.json`, weights and a tokenizer, or a Hub id that is in the local cache.
    `port`: 0 picks a free one. `max_model_len`: the window; None leaves it to the model's config.
    `eager`: no compilation. None means eager on CPU, where compiling costs 30 to 45 seconds and a C++ compiler
    for 1.3 to 1.6 times the tokens per second of a small model, and vLLM's own choice on CUDA.
    `log_path`: where stdout and stderr go; None makes a file in the temporary folder.
    `env`: more environment variables for the engine. `niceness`: 0 to 19, how far it stands back where others need
    the same cores. `progress`: called while it starts.
    Errors: VLLMStartError or ModelNotFound from `start`.
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
        log_path: str | os.PathLike[str] | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        startup_timeout: float = 900.0,
        niceness: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.model = os.fspath(model)
        self.port = port
        self.served_name = served_name
        self.max_model_len = max_model_len
        self.dtype = dtype
        self.seed = seed
        self.eager = eager
        self.log_path = Path(log_path) if log_path is not None else None
        self.extra_args = tuple(extra_args)
        self.env = dict(env or {})
        self.startup_timeout = startup_timeout
        self.niceness = niceness
        self.progress = progress
        self.folder: ModelFolder | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._stop_requested = False

    @property
    def base_url(self) -> str:
        """Of the OpenAI-compatible routes, with `/v1`."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the process runs (not whether it answers)."""
        return self._supervisor is not None and self._supervisor.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The engine's exit status (128 + N after signal N), None while it runs or before it was started."""
        return self._supervisor.poll() if self._supervisor is not None else None

    def start(self) -> Self:
        """Starts the engine and returns when it answers. On any error nothing is left behind."""
        if self.alive:
            raise VLLMStartError(f"this server already runs on port {self.port}")
        self._stop_requested = False
        return self._start()

    def stop(self) -> None:
        """Ends the whole process tree; returns when it is gone. Safe to call twice, and during a start."""
        self._stop_requested = True
        supervisor = self._supervisor
        if supervisor is None or supervisor.stdin is None:
            return
        supervisor.stdin.close()  # what the supervisor waits for
        while True:
            try:
                supervisor.wait(GRACE_SECONDS + 10)
                return
            except subprocess.TimeoutExpired:
                supervisor.kill()
            except KeyboardInterrupt:
                continue  # a second Ctrl-C must not leave an orphan

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        if self.alive:
            raise VLLMStartError(f"this server already runs on port {self.port}")
        self._stop_requested = False
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self.stop()  # the thread sees that and ends
            with contextlib.suppress(LLMError):
                await starting
            raise

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def policy(self, **options: Any) -> TokenPolicy:
        """A token-in/token-out policy on this engine. Options as for `TokenPolicy`."""
        from rlm_env.llm.token_policy import TokenPolicy

        if self.folder is None:
            raise VLLMStartError("start the server before asking it for a policy")
        options.setdefault("logprobs_mode", "processed_logprobs")
        options.setdefault("engine", f"vllm {vllm_version()}")
        options.setdefault("context_window", self.max_model_len)
        options.setdefault("hint", f"its log: {self.log_path}")
        return TokenPolicy(self.served_name or self.folder.name, self.base_url, self.folder.path, **options)

    def answers(self, timeout: float = 30.0) -> bool:
        """Whether the engine says within so many seconds that it is healthy."""
        try:
            with urllib.request.urlopen(f"{self.root_url}/health", timeout=timeout):
                return self.alive
        except OSError:
            return False

    def reload_weights(self, path: str | os.PathLike[str]) -> None:
        """Replaces the weights by those in another folder of the same architecture, in place.

        Requests in flight continue on the new weights; the prefix cache is emptied, since it holds the old ones'
        keys and values. Raises LLMError where the engine refuses.
        """
        folder = find_model(path)
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder.path)}}
        self._post("/collective_rpc", call)
        if is_cpu_build():
            self._post("/collective_rpc", {"method": "refresh_heads"})
        self.reset_prefix_cache()

    def load_adapter(self, name: str, path: str | os.PathLike[str]) -> None:
        """Serves the model with the LoRA adapter in a peft folder under `name`, in place of an earlier one of that
        name. Needs `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1. Raises LLMError where the engine refuses."""
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": os.fspath(path), "load_inplace": True})
        self.reset_prefix_cache()

    def reset_prefix_cache(self) -> None:
        """Forgets the keys and values of all prompts. Requests in flight are computed again from their beginning:
        while they hold blocks of the cache, vLLM would not empty it. Raises LLMError where it did not."""
        reply = self._post("/reset_prefix_cache?reset_running_requests=true", None)
        if json.loads(reply or b"{}").get("success") is not True:
            raise LLMError(f"vLLM did not empty its prefix cache: {reply.decode()[:300]}; log: {self.log_path}")

    def warm_up(self, prompts: int = 64) -> None:
        """Runs one small batch, so that what is set up on first use does not fall into the first rollout."""
        body = {"model": self.served_name, "prompt": [[0, 1, 2, 3]] * prompts, "max_tokens": 2, "logprobs": 0}
        self._post("/v1/completions", body)

    def _start(self) -> Self:
        try:
            self._spawn()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def _spawn(self) -> None:
        check_installed()
        self.folder = find_model(self.model)
        self.served_name = self.served_name or self.folder.name
        self.port = _claim_port(self.port)
        if self.log_path is None:
            handle, name = tempfile.mkstemp(prefix=f"rlm-env-vllm-{self.port}-", suffix=".log")
            os.close(handle)
            self.log_path = Path(name)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_bytes(b"")
        supervise = Path(__file__).with_name("supervise.py")
        scratch = tempfile.mkdtemp(prefix="rlm-env-vllm-")  # sockets, which vLLM leaves behind
        self._supervisor = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(supervise)),
                *(str(os.getpid()), str(GRACE_SECONDS), str(self.niceness), str(self.log_path), scratch),
                *self._command(self.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=default_environment(self.folder, self._is_eager()) | self.env,
            start_new_session=True,  # Ctrl-C in a terminal reaches us, and we stop it
        )

    def _command(self, folder: ModelFolder) -> list[str]:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(folder.path), "--served-model-name", str(self.served_name)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--seed", str(self.seed)]
        command += ["--logprobs-mode", "processed_logprobs", "--enable-prompt-tokens-details"]
        command += ["--disable-uvicorn-access-log"]
        dtype = self.dtype
        if dtype == "auto" and is_cpu_build() and folder.dtype == "float32":
            dtype = "float32"  # vLLM's own "auto" would lower it to 16 bits
        command += ["--dtype", dtype]
        if self.max_model_len is not None:
            command += ["--max-model-len", str(self.max_model_len)]
        if self._is_eager():
            command += ["--enforce-eager"]
        if is_cpu_build():
            command += ["--worker-extension-cls", "rlm_env.llm.vllm.worker.WorkerExtension"]
        if is_tiny_on_cpu(folder):
            command += ["--distributed-executor-backend", "uni"]
        return [*command, *self.extra_args]

    def _is_eager(self) -> bool:
        return is_cpu_build() if self.eager is None else self.eager

    def _wait_until_ready(self) -> None:
        started = time.monotonic()
        while not self._serves_our_model():
            log = read_log(self.log_path)
            now, seconds = stage(log), time.monotonic() - started
            if self._stop_requested:
                raise VLLMStartError(f"stopped while {now}")
            if not self.alive:
                raise VLLMStartError(
                    f"vLLM died while {now} (exit status {self.exit_code}){explain(log, self.log_path)}"
                )
            if seconds > self.startup_timeout:
                raise VLLMStartError(
                    f"vLLM was still {now} after {seconds:.0f} s (startup_timeout){explain(log, self.log_path)}"
                )
            if self.progress is not None:
                self.progress(now, seconds)
            time.sleep(0.25)

    def _serves_our_model(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.root_url}/health", timeout=5):
                pass
            with urllib.request.urlopen(f"{self.base_url}/models", timeout=5) as reply:
                card = json.load(reply)["data"][0]
        except (OSError, ValueError, LookupError):
            return False
        if card["id"] != self.served_name:
            raise VLLMStartError(f"port {self.port} is answered by another server, which serves {card['id']!r}")
        self.max_model_len = card.get("max_model_len", self.max_model_len)
        return True

    def _post(self, path: str, body: Any) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.root_url + path, data=data, headers={"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:300]
            raise LLMError(f"vLLM refused {path}: {error.code} {detail}; log: {self.log_path}") from None
        except OSError as error:
            raise EngineUnavailable(
                f"vLLM does not answer on port {self.port} ({error}); log: {self.log_path}"
            ) from error


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
