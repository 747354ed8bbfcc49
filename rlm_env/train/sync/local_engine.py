"""A vLLM that is started on this machine for a training run, and started again when it dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_env.llm.vllm.install import is_cpu_build
from rlm_env.runs.engine_table import file_name
from rlm_env.runs.options import EngineOptions
from rlm_env.train.sync.config import LARGEST_ADAPTER_RANK
from rlm_env.train.sync.engine import ADAPTER, EngineGone, TrainEngine
from rlm_env.train.sync.transfer import engine_arguments

if TYPE_CHECKING:
    from rlm_env.llm.vllm.server import Progress, VLLMServer

ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, LARGEST_ADAPTER_RANK)
"""The values that vLLM takes for `--max-lora-rank`."""
NICENESS = 10
"""Niceness of a vLLM on the CPU: where both share cores, the trainer goes first, since every step waits for it."""


class LocalEngine(TrainEngine):
    """One vLLM process tree. `options`: how it is started. `dtype`: the trainer's type; it runs in that where
    `options.dtype` is "auto". `method`: how it is to get weights, see `SyncConfig`. `log_folder`: gets one log per
    start, `vllm-NAME-0.log` and so on. `max_restarts`: the most restarts; the next death is final. Raises
    VLLMStartError where it does not start.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        options: EngineOptions | None = None,
        *,
        name: str = "vllm",
        log_folder: Path,
        dtype: str,
        seed: int = 0,
        lora_rank: int | None = None,
        method: str = "disk",
        max_restarts: int = 10,
        progress: Progress | None = None,
    ) -> None:
        self.options = options or EngineOptions()
        dtype = dtype if self.options.dtype == "auto" else self.options.dtype
        super().__init__(model, name=name, dtype=dtype, lora_rank=lora_rank)
        self._method = method
        self._log_folder = log_folder
        self._log_name = "vllm" if name == "vllm" else f"vllm-{file_name(name)}"
        self._seed = seed
        self._max_restarts = max_restarts
        self._progress = progress
        self._process: VLLMServer | None = None

    @property
    def log_path(self) -> Path | None:
        return None if self._process is None else self._process.log_path

    async def _replace(self) -> None:
        """Stops what is left of a dead engine and starts another one."""
        await self._stop()
        if self.restarts >= self._max_restarts:
            raise EngineGone(f"{self.name} has died {self.restarts + 1} times; its last log: {self.log_path}")
        self.restarts += 1
        await self._start()

    async def _start(self) -> None:
        """Starts a vLLM on the weights that are to be served."""
        from rlm_env.llm.vllm.server import VLLMServer

        options = self.options.model_dump(include=set(EngineOptions.model_fields))
        options["dtype"] = self.dtype
        arguments, env = engine_arguments(self._method)
        options["extra_args"] += arguments
        if self._lora_rank is not None:
            rank = next(rank for rank in ADAPTER_RANKS if rank >= self._lora_rank)
            options["extra_args"] += ("--enable-lora", "--max-loras", "1", "--max-lora-rank", str(rank))
            env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        server = VLLMServer(
            self.model.path if self._lora_rank is not None else self.served,
            served_name=self.model.name,
            seed=self._seed + self.restarts,  # so that it does not repeat its samples
            env=env,
            log_path=self._log_folder / f"{self._log_name}-{self.restarts}.log",
            niceness=NICENESS if is_cpu_build() else 0,
            progress=self._progress,
            **options,
        )
        self._server = self._process = await server.__aenter__()
        try:
            if self._adapter is not None:
                await server.load_adapter(ADAPTER, self._adapter)
            await self._connect(self.model.name if self._adapter is None else ADAPTER)
            await server.warm_up()
        except BaseException:
            await self._stop()
            raise

    async def _stop(self) -> None:
        await self._disconnect()
        if self._process is not None:
            await self._process.__aexit__(None, None, None)
