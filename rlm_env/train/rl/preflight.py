"""Checks of a run before it costs anything, and what `--dry-run` shows.

The chat template, the length of samples, memory. Environments and sampling are checked in `environment_mix.py`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.llm.vllm.install import is_cpu_build
from rlm_env.messages import Completion, Message
from rlm_env.readable.words import start_of
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.models import resolve_folder
from rlm_env.runs.options import MODEL_FOLDER
from rlm_env.runs.profile import load_profile, rollout_profile
from rlm_env.train.learner.config import ModelError
from rlm_env.train.learner.model import (
    check_attention,
    check_buildable,
    model_without_values,
    pick_device,
    read_model_config,
)
from rlm_env.train.learner.packing_check import PackingError
from rlm_env.train.learner.preview import preview_model
from rlm_env.train.learner.samples import Sample
from rlm_env.train.learner.weight_stream import stacked_experts
from rlm_env.train.rl.config import CurriculumStage, TrainConfig
from rlm_env.train.rl.engine_entries import TrainEngineEntry, engines_for
from rlm_env.train.rl.engine_fit import (
    PromptFit,
    check_gpus,
    check_parser,
    check_servers,
    gpus_here,
    local_servers,
    own_window,
)
from rlm_env.train.rl.engines import check_fixed_models
from rlm_env.train.rl.environment_mix import NO_JUDGED, any_judged, make_train_environment, rollout_config
from rlm_env.train.rl.sampler import check_pools
from rlm_env.train.rl.supervised import supervised_share
from rlm_env.train.rl.teacher import check_teacher
from rlm_env.train.run_folder import check_run_folder
from rlm_env.train.sync.config import METHODS_OF_VLLM
from rlm_env.train.sync.transfer_check import trainer_gpus, transfer_refusal
from rlm_env.train.sync.weight_sync import NOT_RUN

CODE = "```repl\nprint(len(context))\n```"
REASONING = "<think>\nFirst look.\n</think>\n\n"


def keeps_prefix(tokens: ChatTokens) -> bool:
    """True where the prompt of a second turn begins with exactly the ids of the first turn, including its reasoning if
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
            "earlier turns, so that each turn would be a separate sample: allow it, or choose a renderer in the "
            'model\'s rlm_env.json that keeps them (for Qwen3: {"name": "qwen3", "thinking_retention": "all"})'
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
    if config.teacher is not None and any(sample.teacher_logprobs is None for sample in samples):
        raise ConfigError(
            f"{where}: samples without teacher_logprobs, which [teacher] needs; dump them from such a run"
        )


def preflight(config: TrainConfig, console: Console) -> None:
    """`--dry-run`: checks a config and prints what the run will be; under torchrun, for as many processes. Starts and
    writes nothing. Raises ConfigError."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    groups = config.groups
    rollouts = groups.size * groups.per_step
    check_run_folder(config)
    check_parser(config)
    table.add_row("run", f"{config.steps} steps of {groups.per_step} groups x {groups.size} = {rollouts} rollouts")
    table.add_row("policy", f"{config.model}, {_how_trained(config)}")
    table.add_row("loss", f"{config.loss.preset}, divided by {config.loss.norm}; advantages {config.advantage.mode}")
    for objective in _objectives(config):
        table.add_row("objective", objective)
    table.add_row("trains", f"{_trained_roles(config)} tokens, at most {groups.max_off_policy_steps} updates old")
    folder = _model_on_disk(config)
    if folder is None:
        note = f"not on this disk (hf download {config.model}): template, memory and tasks that need it are unchecked"
        table.add_row("model", note)
        _check_without_model(config)
        found = _tasks(config, None)
    else:
        check_teacher(config.teacher, folder)
        if (supervised := supervised_share(config, folder)) is not None:
            table.add_row("supervised", supervised.describe())
        kept = check_template(folder, config)
        table.add_row(
            "template", "a conversation is one sample" if kept else "rewrites earlier turns: a sample for each turn"
        )
        check_model(config, folder, dry=True)
        try:
            lines = preview_model(folder, config.trainer, reference=bool(config.loss.kl_weight))
        except (ModelError, PackingError) as error:
            raise ConfigError(str(error)) from error
        for name, value in lines:
            table.add_row(name, value)
        found = _tasks(config, folder)
    for name, value in found:
        table.add_row(name, value)
    if config.sync.method in METHODS_OF_VLLM:
        table.add_row("sync", NOT_RUN.format(config.sync.method))
    for name, value in _engines(config):
        table.add_row(name, value)
    table.add_row("output", str(config.out))
    console.print(table)


def _objectives(config: TrainConfig) -> list[str]:
    """What is trained for beside the reward, in words."""
    found = []
    if config.loss.kl_weight:
        found.append(f"KL to the initial policy ({config.loss.kl_estimator}), weight {config.loss.kl_weight:g}")
    if (teacher := config.teacher) is not None:
        place = teacher.base_url or "a local vLLM"
        reward = f"with weight {teacher.reward_weight:g}" if teacher.reward_weight else "not trained for"
        found.append(f"distillation from {teacher.model} at {place}, weight {teacher.weight:g}; the reward is {reward}")
    if (supervised := config.supervised) is not None:
        files = ", ".join(supervised.rollouts)
        found.append(f"{supervised.per_step} supervised samples a step of {files}, weight {supervised.weight:g}")
    return found


def check_model(config: TrainConfig, folder: Path, *, live: bool = True, dry: bool = False) -> None:
    """Raises ConfigError where the model cannot be trained as configured. `live`: with an engine, whose window must fit
    into a pack. `dry`: see `check_servers`. Allocates nothing."""
    try:
        pick_device(config.trainer)
        model_config = read_model_config(folder)
        targets = check_buildable(model_config, config.trainer)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    if config.sync.method == "lora" and targets is not None and targets.parameters:
        raise ConfigError(
            'sync.method = "lora": this model stacks the weights of its experts, and an adapter on them is not given '
            'to vLLM as it is; use "disk", which sends merged weights, or trainer.lora.targets = ["q_proj", "v_proj"]'
        )
    if live:
        if config.sync.method in METHODS_OF_VLLM:
            _check_transfer(config, _stacked(config, model_config))
        longest = getattr(model_config.get_text_config(), "max_position_embeddings", None)
        here = [entry.server.max_model_len or longest for entry in config.engine_entries() if _is_ours(entry)]
        check_window(config, max((window for window in here if window is not None), default=None))
        check_fixed_models(config)
        check_servers(config, dry=dry)


def _check_without_model(config: TrainConfig) -> None:
    """`check_model`, as far as it can be told without one."""
    try:
        pick_device(config.trainer)
        check_attention(config.trainer)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    if config.sync.method in METHODS_OF_VLLM:
        _check_transfer(config, ())
    for where, options, _ in local_servers(config):
        check_gpus(where, options, dry=True)


def _stacked(config: TrainConfig, model_config: Any) -> list[str]:
    """The model's weights that are not in memory as in its files."""
    with torch.device("meta"):
        return stacked_experts(model_without_values(model_config, config.trainer))


def _check_transfer(config: TrainConfig, stacked: Sequence[str]) -> None:
    """Raises ConfigError where weights cannot go from memory to memory as configured."""
    engine = next(entry for entry in config.engine_entries() if entry.followed)
    elsewhere = engine.base_url is not None
    devices = () if elsewhere else engine.server.devices
    refusal = transfer_refusal(
        config.sync.method,
        device=pick_device(config.trainer).type,
        cpu_engine=is_cpu_build() and not elsewhere,
        trainer=trainer_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        engine=None if devices is None else [str(device) for device in devices],
        stacked=stacked,
    )
    if refusal is not None:
        raise ConfigError(refusal)


def _model_on_disk(config: TrainConfig) -> Path | None:
    """The model's folder; None for a Hub id that was not downloaded. Raises ConfigError for anything else."""
    try:
        return resolve_folder(config.model)
    except ConfigError:
        if config.model.count("/") == 1 and not config.model.startswith((".", "/", "~")):
            return None
        raise


def _is_ours(entry: TrainEngineEntry) -> bool:
    """Whether it is started here, on the weights that are trained."""
    return entry.followed and entry.base_url is None


def _engines(config: TrainConfig) -> list[tuple[str, str]]:
    """The lines of `--dry-run` about engines. Asks none of them."""
    on_cpu = config.trainer.device == "cpu"
    trainers = [] if on_cpu else trainer_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    lines = []
    for entry in config.engine_entries():
        what = f"vLLM at {entry.base_url}" if entry.base_url else "vLLM"
        if entry.base_url is None and not importlib.util.find_spec("vllm"):
            what = "vLLM is not installed here"
        if config.engines:
            what += f", {' and '.join(entry.roles)}, {entry.weights}"
        if entry.server.devices is not None:
            what += f", on GPUs {', '.join(map(str, entry.server.devices))}"
            what += " (there is none here, so that they are unchecked)" if gpus_here() == set() else ""
            shared = [device for device in entry.server.devices if str(device) in trainers]
            if shared:
                what += f" (the trainer is on {', '.join(map(str, shared))} too)"
        lines.append(("" if lines else "engine", f"{entry.name}: {what}" if config.engines else what))
    if engines_for("judge", config.engine_entries()) and not any_judged(config):
        lines.append(("", NO_JUDGED))
    return lines


def _trained_roles(config: TrainConfig) -> str:
    """Whose tokens are trained, in words."""
    if config.samples.train_root and config.samples.train_sub_calls:
        return "root and sub-LLM"
    return "root" if config.samples.train_root else "sub-LLM"


def _how_trained(config: TrainConfig) -> str:
    """Which weights are trained and how, in words."""
    lora = config.trainer.lora
    weights = f"LoRA of rank {lora.rank}" if lora else "all weights"
    return f"{weights}, {config.trainer.dtype}, lr {config.optimizer.lr:g} ({config.optimizer.schedule})"


def _tasks(config: TrainConfig, model: Path | None) -> list[tuple[str, str]]:
    """One line for each environment and stage. The first task shows that the options work; without the model's folder,
    tasks that need it are left out."""
    total = sum(entry.weight for entry in config.environments)
    profile = rollout_profile(model)
    prompts = _prompt_fit(config, model)
    lines = []
    for entry in config.environments:
        for held_out in (False, True):
            rollout_config(config, entry, profile, held_out)
        share = f"{entry.weight / total:.0%} of the groups"
        stages = [(entry.label, share, {}), ("", "held out", entry.eval_options)]
        stages += [("", _from_step(config, stage), stage.options) for stage in entry.curriculum]
        for name, what, options in stages:
            if model is None and MODEL_FOLDER in {**config.options, **entry.options, **options}.values():
                make_train_environment(config, entry, None, options)
                lines.append((name, f"{what}; its tasks need the model"))
                continue
            environment = make_train_environment(config, entry, model, options)
            settings = rollout_config(config, entry, profile, what == "held out")
            prompts.check(entry.label, environment, settings)
            try:
                task = next(iter(environment.tasks("eval" if what == "held out" else "train")))
                check_pools(config.groups.pools, entry.label, task)
            except ConfigError:
                raise
            except StopIteration:
                raise ConfigError(f"environment {entry.label} has no tasks ({what})") from None
            except (TypeError, ValueError, OSError) as error:
                raise ConfigError(f"environment {entry.label} cannot make its tasks: {error}") from error
            lines.append((name, f'{what}; for example: "{start_of(task.question, 100)}"'))
    return lines


def _prompt_fit(config: TrainConfig, model: Path | None) -> PromptFit:
    """What the prompts of rollouts are held against: the smallest window of an engine that plays the root."""
    servers = local_servers(config, "root")
    sizes = [(server.max_model_len, where) for where, server, _ in servers if server.max_model_len]
    if model is None:
        tokens = own = None
    else:
        tokens = ChatTokens(model, load_profile(model).get("renderer"))
        own = own_window(read_model_config(model))
    size, where = min(sizes, default=(None, ""))
    if size is None:
        return PromptFit(own, f"model = {config.model}", tokens)
    return PromptFit(size, f"{where}.max_model_len", tokens)


def _from_step(config: TrainConfig, stage: CurriculumStage) -> str:
    never = "" if stage.from_step < config.steps else f" (never: the run has {config.steps} steps)"
    return f"from step {stage.from_step}{never}"
