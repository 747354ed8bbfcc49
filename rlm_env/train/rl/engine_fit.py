"""Whether the vLLMs that a run starts can serve their models on this machine: windows, prompts, GPUs.

Starts nothing. Which arguments training allows is in `engine_arguments.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from rlm_env.environment import Environment
from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.llm.vllm.arguments import argument_names, parser_complaint, server_arguments
from rlm_env.llm.vllm.install import is_cpu_build, vllm_version
from rlm_env.messages import Message
from rlm_env.protocol import user_message
from rlm_env.runs.engine_table import Role
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.models import model_folder
from rlm_env.runs.options import EngineOptions
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from rlm_env.train.learner.config import ModelError
from rlm_env.train.learner.forward import text_settings
from rlm_env.train.learner.memory import GIB, training_memory
from rlm_env.train.learner.model import pick_device, read_model_config
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.engine_entries import TrainEngineEntry
from rlm_env.train.sync.transfer_check import trainer_gpus

TOKEN_CHARS = 8
"""Characters of a token, without a tokenizer to count with: twice the usual, so that no prompt that fits is refused."""
LONG_WINDOWS = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
"""The environment variable that lets vLLM run a model beyond its own window."""
GPU = re.compile(r"(?:GPU (?P<number>\d+): .*|\s+MIG .*)\(UUID:\s*(?P<id>[^)\s]+)\)")
"""A line of `nvidia-smi -L`."""
RANKS = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")
"""Arguments whose product is the number of GPUs that a vLLM takes."""
VLLM_SHARE = 0.92
"""Of a GPU's memory, what a vLLM takes that is not told otherwise (vLLM 0.30)."""
MEMORY_LIMITS = {"--gpu-memory-utilization", "--kv-cache-memory-bytes"}
"""Arguments that say how much memory of a GPU a vLLM may have."""


def local_servers(config: TrainConfig, role: Role | None = None) -> Iterator[tuple[str, EngineOptions, str]]:
    """Of each vLLM that the run starts: the place of its table in the config, its options, its model. `role`: of those
    alone that answer in it; a teacher has none."""
    for entry in config.engine_entries():
        if entry.base_url is None and (role is None or role in entry.roles):
            where = f"engines.{entry.name}.server" if config.engines else "engine"
            yield where, entry.server, _model_of(entry, config)
    if role is None and config.teacher is not None and config.teacher.base_url is None:
        yield "teacher.server", config.teacher.server, config.teacher.model


def _model_of(entry: TrainEngineEntry, config: TrainConfig) -> str:
    return config.model if entry.followed else entry.model or config.model


def check_servers(config: TrainConfig, *, dry: bool = False) -> None:
    """Raises ConfigError where a vLLM of the run cannot be started as configured. `dry`: the run may be meant for
    another machine, so that GPUs are not missed where there are none at all."""
    windows: dict[str, int] = {}
    for where, options, model in local_servers(config):
        check_gpus(where, options, dry=dry)
        try:
            model_config = read_model_config(model_folder(model))
        except ModelError:
            continue  # vLLM knows architectures that transformers does not; the policy's own was read before
        _check_window(where, options, model, model_config)
        _check_heads(where, options, model_config)
        windows[where] = options.max_model_len or own_window(model_config) or 0
    _check_shares(config)
    _check_teacher_window(config, windows)


def _check_shares(config: TrainConfig) -> None:
    """Raises ConfigError where a vLLM would want nearly all memory of a GPU on which another one, or the trainer, is
    too: it would not start."""
    at: dict[str, tuple[str, bool]] = {}
    beside_trainer = _gpus_of_trainer(config)
    for where, options, _ in local_servers(config):
        limited = bool(argument_names(options.extra_args) & MEMORY_LIMITS)
        for gpu in _gpus_of(options):
            if gpu in beside_trainer and not limited:
                _check_beside_trainer(config, where, gpu)
            other, other_limited = at.setdefault(gpu, (where, limited))
            if other != where and not (limited and other_limited):
                raise ConfigError(
                    f"{other} and {where} are both on GPU {gpu}, and each would take nine tenths of its memory: give "
                    f'each its part, such as "--gpu-memory-utilization", "0.4", in extra_args, or devices of its own'
                )


def _gpus_of_trainer(config: TrainConfig) -> list[str]:
    """The GPUs of the trainer's processes on this machine; none where there are none here."""
    on_card = pick_device(config.trainer).type == "cuda"
    return trainer_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if on_card else []


def _check_beside_trainer(config: TrainConfig, where: str, gpu: str) -> None:
    """Raises ConfigError where a vLLM that takes all it can get leaves too little of this GPU to the trainer."""
    processes, reference = int(os.environ.get("WORLD_SIZE", "1")), bool(config.loss.kl_weight)
    try:
        model_config = read_model_config(model_folder(config.model))
        need = training_memory(model_config, config.trainer, processes, reference=reference).total
    except ModelError as error:
        raise ConfigError(str(error)) from error
    there = torch.cuda.mem_get_info(pick_device(config.trainer))[1]
    if need > (1 - VLLM_SHARE) * there:
        raise ConfigError(
            f"{where}: it is on GPU {gpu} beside the trainer, which needs about {need / GIB:.1f} GiB of its "
            f"{there / GIB:.1f} GiB, and would take nine tenths of them: give it its part, such as "
            '"--gpu-memory-utilization", "0.4", in extra_args, or other GPUs (devices)'
        )


def _gpus_of(options: EngineOptions) -> list[str]:
    """The GPUs of a vLLM, as far as they are known here."""
    if options.devices is not None:
        return [str(device) for device in options.devices]
    return trainer_gpus(_ranks(options, *RANKS)) if torch.cuda.is_available() and not is_cpu_build() else []


def _check_teacher_window(config: TrainConfig, windows: Mapping[str, int]) -> None:
    """Raises ConfigError where a teacher that is started here could not be asked about the policy's longest samples.
    `windows`: in tokens, of the vLLMs that are started here, by place in the config; 0 or left out: not known."""
    own = windows.get("teacher.server", 0)
    roots = {where: windows.get(where, 0) for where, _, _ in local_servers(config, "root")}
    where, longest = max(roots.items(), key=lambda item: item[1], default=("", 0))
    if 0 < own < longest:
        raise ConfigError(
            f"teacher.server.max_model_len: the teacher's window of {own:,} tokens is below that of the policy, "
            f"{longest:,}: raise it, or lower {where}.max_model_len"
        )


def check_parser(config: TrainConfig) -> None:
    """Raises ConfigError where the installed vLLM takes the arguments of an engine that is not trained otherwise than
    they were meant, or not at all. Those of an engine that follows are all known (`engine_arguments.py`)."""
    follows = [entry.server for entry in config.engine_entries() if entry.followed]
    for where, options, _ in local_servers(config):
        if options.extra_args and options not in follows and vllm_version():
            complaint = parser_complaint(options.extra_args)
            if complaint is not None:
                raise ConfigError(f"{where}.extra_args: vLLM {vllm_version()} does not take them: {complaint}")


def own_window(model_config: Any) -> int | None:
    """The longest window in tokens that vLLM gives a model of this (Hugging Face) configuration, or a little more; None
    where the configuration does not say."""
    text = text_settings(model_config)
    window = getattr(text, "max_position_embeddings", None)
    if window is None:
        return None
    ropes = getattr(text, "rope_parameters", None) or {}
    tables = [ropes, *(part for part in ropes.values() if isinstance(part, dict))]
    factor = max(table.get("factor") or 1 for table in tables)
    return int(max(window * factor, getattr(text, "model_max_length", None) or 0))


def _check_window(where: str, options: EngineOptions, model: str, model_config: Any) -> None:
    longest = own_window(model_config)
    if options.max_model_len and longest and options.max_model_len > longest and not os.environ.get(LONG_WINDOWS):
        raise ConfigError(
            f"{where}.max_model_len is {options.max_model_len:,}, but the window of {model} is {longest:,} tokens: "
            "lower it, or leave it out"
        )


def _check_heads(where: str, options: EngineOptions, model_config: Any) -> None:
    heads = getattr(text_settings(model_config), "num_attention_heads", None)
    split = _ranks(options, "--tensor-parallel-size")
    if heads and heads % split:
        raise ConfigError(
            f"{where}.extra_args: --tensor-parallel-size {split} does not divide the model's {heads} attention heads"
        )


def _ranks(options: EngineOptions, *names: str) -> int:
    """The product of the sizes under these names."""
    found = 1
    for argument in server_arguments(options.extra_args):
        if argument.name in names and argument.values and argument.values[0].isdigit():
            found *= int(argument.values[0])
    return found


def check_gpus(where: str, options: EngineOptions, *, dry: bool = False) -> None:
    """Raises ConfigError where the options name GPUs that this machine has not, or more processes than GPUs. `dry`: see
    `check_servers`."""
    devices, ranks = options.devices, _ranks(options, *RANKS)
    if devices is not None:
        names = [str(device) for device in devices]
        if len(set(names)) < len(names):
            raise ConfigError(f"{where}.devices names a GPU twice: {', '.join(names)}")
        if ranks > len(names):
            raise ConfigError(
                f"{where}.extra_args asks for {ranks} GPUs ({' x '.join(RANKS)}), and {where}.devices has {len(names)}"
            )
        here = gpus_here()
        if here is not None and (here or not dry):
            numbers = ", ".join(sorted(found for found in here if found.isdigit())) or "none"
            if missing := [name for name in names if not _is_one_of(name, here)]:
                raise ConfigError(f"{where}.devices: there is no GPU {', '.join(missing)} here; there are: {numbers}")
        if ranks < len(names):
            raise ConfigError(
                f"{where}.devices has {len(names)} GPUs, and vLLM would use {ranks}: name fewer, or add "
                f'"--tensor-parallel-size", "{len(names)}" to {where}.extra_args'
            )
    elif torch.cuda.is_available() and ranks > torch.cuda.device_count() and not is_cpu_build():
        raise ConfigError(
            f"{where}.extra_args asks for {ranks} GPUs ({' x '.join(RANKS)}), and {torch.cuda.device_count()} are here"
        )


def _is_one_of(name: str, here: set[str]) -> bool:
    """Whether a GPU is among these; an id may be cut short, as in CUDA_VISIBLE_DEVICES."""
    return name in here or (not name.isdigit() and any(found.startswith(name) for found in here))


@cache
def gpus_here() -> set[str] | None:
    """Numbers and ids of all GPUs of this machine, whatever CUDA_VISIBLE_DEVICES says; None where that is unknown. The
    driver is asked once in a process."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None if torch.cuda.is_available() else set()
    found: set[str] = set()
    for line in listed.stdout.splitlines():
        if match := GPU.match(line):
            found.update(filter(None, match.groups()))
    return found if listed.returncode == 0 else None


@dataclass(frozen=True, slots=True)
class PromptFit:
    """Whether the prompts of an environment can fit into the engine's window."""

    window: int | None
    where: str
    """What says how long the window is."""
    tokens: ChatTokens | None
    """The policy's; None where it is not on this disk: then a lower bound is taken."""

    def check(self, label: str, environment: Environment, settings: RLMConfig) -> None:
        """Raises ConfigError where not even a question of one character leaves room for a reply."""
        if self.window is None:
            return
        system = RLMEnv(environment, settings).system_prompt(use_tool=False)
        question = user_message(Task("?"))
        messages: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        if self.tokens is None:
            size = (len(system) + len(question)) // TOKEN_CHARS
        else:
            size = len(self.tokens.prompt(messages, None).ids)
        if size >= self.window:
            least = "at least " if self.tokens is None else ""
            raise ConfigError(
                f"{self.where}: the window of {self.window:,} tokens is too small: the prompt of {label} has "
                f"{least}{size:,} without any question"
            )
