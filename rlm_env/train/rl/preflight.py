"""Checks of a run before it costs anything, and what `--dry-run` shows.

The chat template, the length of samples, memory. Environments and sampling are checked in `environment_mix.py`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.messages import Completion, Message
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.models import resolve_folder
from rlm_env.runs.profile import load_profile
from rlm_env.train.learner.memory import GIB, available_memory, training_memory
from rlm_env.train.learner.model import pick_device, read_model_config
from rlm_env.train.learner.samples import Sample
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import EnvironmentMix

CODE = "```repl\nprint(len(context))\n```"
REASONING = "<think>\nFirst look.\n</think>\n\n"


def keeps_prefix(tokens: ChatTokens) -> bool:
    """True where the prompt of a second turn begins with exactly the ids of the first turn, including its reasoning where
    the template has any."""
    thinks = "think" in (tokens.tokenizer.chat_template or "")
    return all(_extends(tokens, reply) for reply in ([CODE, REASONING + CODE] if thinks else [CODE]))


def _extends(tokens: ChatTokens, reply: str) -> bool:
    messages: list[Message] = [{"role": "system", "content": "Write code."}, {"role": "user", "content": "How many?"}]
    prompt = tokens.prompt(messages, None)
    ids = tokens.tokenizer.encode(reply, add_special_tokens=False) + tokens.stop_token_ids[:1]
    completion = Completion("", prompt_ids=prompt.ids, completion_ids=ids, history_key=prompt.history_key)
    tokens.parse(completion, None)
    return tokens.prompt([*messages, completion.message(), {"role": "user", "content": "Output:\n12"}], None).extended


def check_template(model: Path, config: TrainConfig) -> bool:
    """True where a conversation stays one sample. Raises ConfigError where it does not and `allow_forks` is off."""
    tokens = ChatTokens(model, load_profile(model).get("renderer"))
    kept = keeps_prefix(tokens)
    if not kept and not config.allow_forks:
        raise ConfigError(
            f"allow_forks is off, but the chat template of {config.model} (renderer {tokens.renderer_name}) rewrites "
            "earlier turns, so that each turn would be a separate sample: allow it, or choose a renderer in the model's "
            'rlm_env.json that keeps them (for Qwen3: {"name": "qwen3", "thinking_retention": "all"})'
        )
    return kept


def check_window(config: TrainConfig, window: int | None) -> None:
    """Raises ConfigError where a conversation could outgrow a pack. `window`: the engine's context window in tokens."""
    if window is not None and config.trainer.pack_tokens < window:
        raise ConfigError(
            f"trainer.pack_tokens is {config.trainer.pack_tokens:,}, less than the engine's window of {window:,} "
            "tokens: a long rollout could not be trained; raise it, or lower engine.max_model_len"
        )


def check_samples_fit(samples: Sequence[Sample], config: TrainConfig, where: str) -> None:
    """Raises ConfigError where a sample is longer than a pack or nothing is trained."""
    longest = max((len(sample) for sample in samples), default=0)
    if longest > config.trainer.pack_tokens:
        raise ConfigError(f"{where}: a sample has {longest:,} tokens; raise trainer.pack_tokens to that at least")
    if not any(sample.trained_tokens for sample in samples):
        raise ConfigError(f"{where}: no sample has a trained token")


def preflight(config: TrainConfig, console: Console) -> None:
    """`--dry-run`: checks a config and prints what the run will be; under torchrun, for as many processes. Starts and
    writes nothing. Raises ConfigError."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    groups = config.groups
    rollouts = groups.size * groups.per_step
    table.add_row("run", f"{config.steps} steps of {groups.per_step} groups x {groups.size} = {rollouts} rollouts")
    table.add_row("policy", f"{config.model}, {_how_trained(config)}")
    table.add_row("loss", f"{config.loss.preset}, divided by {config.loss.norm}; advantages {config.advantage.mode}")
    trained = "root and sub-LLM tokens" if config.samples.train_sub_calls else "root tokens"
    table.add_row("trains", f"{trained}, at most {groups.max_off_policy_steps} updates old")
    folder = _model_on_disk(config)
    if folder is None:
        note = f"not on this disk (hf download {config.model}): template, memory and tasks that need it are unchecked"
        table.add_row("model", note)
        console.print(table)
        return
    kept = check_template(folder, config)
    table.add_row(
        "template", "a conversation is one sample" if kept else "rewrites earlier turns: a sample for each turn"
    )
    device = pick_device(config.trainer)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    need = training_memory(read_model_config(folder), config.trainer, processes)
    free = available_memory(device)
    each = f" in each of {processes} processes" if processes > 1 else ""
    table.add_row("memory", f"about {need.total / GIB:.2f} GiB{each} of {free / GIB:.2f} GiB free on {device} ({need})")
    if device.type == "cuda" or processes > 1:
        free = available_memory(torch.device("cpu"))
        table.add_row("loading", f"{need.loading / GIB:.2f} GiB{each} of {free / GIB:.2f} GiB of the machine's memory")
    for name, value in _tasks(config, EnvironmentMix(config, folder)):
        table.add_row(name, value)
    table.add_row("engine", "vLLM" if importlib.util.find_spec("vllm") else "vLLM is not installed here")
    table.add_row("output", str(config.out))
    console.print(table)


def _model_on_disk(config: TrainConfig) -> Path | None:
    """The model's folder; None for a Hub id that was not downloaded. Raises ConfigError for anything else."""
    try:
        return resolve_folder(config.model)
    except ConfigError:
        if config.model.count("/") == 1 and not config.model.startswith((".", "/", "~")):
            return None
        raise


def _how_trained(config: TrainConfig) -> str:
    lora = config.trainer.lora
    weights = f"LoRA of rank {lora.rank}" if lora else "all weights"
    return f"{weights}, {config.trainer.dtype}, lr {config.optimizer.lr:g} ({config.optimizer.schedule})"


def _tasks(config: TrainConfig, mix: EnvironmentMix) -> list[tuple[str, str]]:
    """One line for each environment: its first task proves that its options work."""
    total = sum(environment.weight for environment in config.environments)
    lines = []
    for environment in config.environments:
        for stage in range(-1, len(environment.curriculum)):
            try:
                (task,) = mix.tasks(environment.label, stage).take(1)
            except (TypeError, ValueError, OSError) as error:
                raise ConfigError(f"environment {environment.label} cannot make its tasks: {error}") from error
            example = f"for example: {task.question[:100]!r}"
            if stage < 0:
                lines.append((environment.label, f"{environment.weight / total:.0%} of the groups; {example}"))
            else:
                lines.append(("", f"from step {environment.curriculum[stage].from_step}; {example}"))
    return lines
