"""The config of `rlm-env train`: its tables, which settings exclude each other, and which may change on resume.

The tables of the learner are in `learner/config.py`, those that evaluations have too in `runs/options.py`, that of the
advantages in `advantage.py`. Environments check their own options (`environment_mix.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from rlm_env.llm.proxy import is_this_machine
from rlm_env.llm.vllm.arguments import set_elsewhere
from rlm_env.runs.config import config_differences, read_config_file, refuse_differences
from rlm_env.runs.config_table import Table
from rlm_env.runs.engine_table import endpoint_place
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.options import EngineOptions, EnvironmentEntry, RolloutTable, apply_overrides, check_labels
from rlm_env.train.learner.config import CheckpointConfig, LossConfig, ModelConfig, OptimizerConfig, SamplesConfig
from rlm_env.train.report.tracking import TensorboardConfig, WandbConfig
from rlm_env.train.rl.advantage import AdvantageConfig
from rlm_env.train.rl.engine_arguments import argument_problems
from rlm_env.train.rl.engine_entries import TrainEngineEntry, engine_problems, place_problems
from rlm_env.train.rl.supervised_config import SupervisedConfig
from rlm_env.train.rl.teacher_config import TeacherConfig
from rlm_env.train.sync.config import LARGEST_ADAPTER_RANK, SyncConfig


class CurriculumStage(Table):
    """A stage of an environment's curriculum: options that hold from a step on."""

    from_step: int = Field(ge=0)
    """The first optimizer step, counted from 0, whose groups are drawn with these options."""
    options: dict[str, Any]
    """Over the environment's own options."""


class TrainEnvironment(EnvironmentEntry):
    """One of `[[environments]]`: the keys that evaluations have too, and those of training."""

    weight: float = Field(default=1.0, gt=0)
    """Share of the groups, relative to the other environments."""
    eval_options: dict[str, Any] = Field(default_factory=dict)
    """Options for the held-out evaluation, over `options`; for example longer contexts."""
    curriculum: tuple[CurriculumStage, ...] = ()
    """Stages with options over `options`. The step for which a group is sampled decides."""

    @field_validator("curriculum")
    @classmethod
    def _in_order(cls, value: tuple[CurriculumStage, ...]) -> tuple[CurriculumStage, ...]:
        steps = [stage.from_step for stage in value]
        if steps != sorted(set(steps)):
            raise ValueError(f"from_step must rise from stage to stage, got {steps}")
        return value


class DifficultyPools(Table):
    """Pools of tasks that are drawn less often while they are too easy or too hard to teach anything.

    Tasks with equal `info[by]`, for example a length or a family, form a pool; without `by`, each task is a pool,
    which has an effect only where a finite split is repeated.
    """

    by: str | None = None
    """Key of a task's `info`: tasks with equal values form a pool. None: each task is one."""
    easy: float = Field(default=0.95, ge=0, le=1)
    """A pool is easy while the mean reward of its last groups is at least this."""
    hard: float = Field(default=0.0, ge=0, le=1)
    """A pool is hard while the mean reward of its last groups is at most this."""
    keep_easy: float = Field(default=0.2, gt=0, le=1)
    """Share of the tasks of easy pools that is still drawn."""
    keep_hard: float = Field(default=0.5, gt=0, le=1)
    """Share of the tasks of hard pools that is still drawn."""
    window: int = Field(default=4, ge=1)
    """Groups of a pool that count, the last ones. A pool with fewer is neither easy nor hard."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.hard >= self.easy:
            raise ValueError(f"hard ({self.hard:g}) must be below easy ({self.easy:g})")
        return self


class GroupsConfig(Table):
    """How groups of rollouts are made, and which of them a step trains."""

    size: int = Field(default=8, ge=2)
    """Rollouts of one task, which are each other's baseline."""
    per_step: int = Field(default=8, ge=1)
    """Groups that one optimizer step trains."""
    max_off_policy_steps: int = Field(default=1, ge=0)
    """Most updates between the weights that sampled a rollout's first token and those that it trains. 0: engine and
    trainer take turns. More: slow rollouts delay the trainer less; fast ones are trained on-policy all the same."""
    max_wait_share: float = Field(default=0.5, ge=0, lt=1)
    """Groups are begun before an update only if the trainer would otherwise wait for rollouts in more than this share
    of the time. Less means faster steps, more means samples that are less off-policy."""
    concurrency: int = Field(default=64, ge=1)
    """Most rollouts in flight."""
    replace_zero_advantage: bool = True
    """Dynamic sampling: a group without advantages teaches nothing and is replaced. So is one that differs in cost
    alone (`advantage.cost_weight`), where half of the step's groups do already."""
    min_advantage: float = Field(default=0.01, ge=0)
    """A group whose largest advantage (in absolute value) is not above this counts as one without advantages. Without
    it, small differences in cost would pass for something to learn."""
    max_zero_advantage_share: float = Field(default=0.75, ge=0, lt=1)
    """Largest share of the groups made for a step that is replaced; beyond it, zero-advantage groups are kept."""
    timeout: float = Field(default=3600.0, ge=0.1)
    """Seconds from the start of its first rollout until a group is closed with the rollouts that have ended. The others
    are not trained, so slow rollouts are trained less often than they are drawn where this is below
    `rollout.max_seconds` (1800 unless set), at which a rollout ends by itself and is trained as unfinished."""
    min_size: int = Field(default=2, ge=2)
    """A group with fewer scored rollouts is dropped."""
    unfinished: Literal["score", "zero", "drop"] = "score"
    """The trained reward of a rollout that a limit ended (turns, tokens, time, window). `score`: its score. `zero`: 0,
    so that handing in an answer is learned. `drop`: it is left out of its group (the overlong filtering of DAPO,
    arXiv:2503.14476). The recorded score is the environment's in any case."""
    cost: Literal["sub_calls", "tokens"] = "sub_calls"
    """The cost that `advantage.cost_weight` penalizes."""
    pools: DifficultyPools | None = None
    """None: every task may be drawn at any time."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuses settings of groups that contradict each other."""
        if self.min_size > self.size:
            raise ValueError(f"min_size ({self.min_size}) is above size ({self.size})")
        return self


class HeldOutConfig(Table):
    """The periodic evaluation on the environments' `eval` split. It runs beside the training, which does not wait for
    it; each rollout records the weights that sampled it."""

    every: int = Field(default=10, ge=0)
    """Steps between two evaluations; 0: none but those before the first step and after the last one, which are always
    made, each on one version of the weights."""
    n: int = Field(default=32, ge=0)
    """Tasks of each environment; 0: no evaluation at all."""
    repeats: int = Field(default=1, ge=1)
    """Rollouts of each task."""
    concurrency: int | None = Field(default=None, ge=1)
    """Most of its rollouts in flight beside those of training; None: a quarter of `groups.concurrency`. The last
    evaluation, which is alone, takes all of those."""
    rollout: RolloutTable = Field(default_factory=dict)
    """Fields of `RLMConfig` that differ from those of training, such as `root.temperature = 0`. Nothing here is
    trained, so that everything may be sampled."""


class TrainConfig(Table):
    """Everything that decides a training run of `rlm-env train`."""

    model: str
    """The policy to begin with: a model folder, a Hub id in the local cache, or `tiny-rlm`."""
    out: Path
    """The output folder; if left out, outputs/NAME after the config file."""
    environments: tuple[TrainEnvironment, ...] = Field(min_length=1)
    """What is trained on: `[[environments]]`."""
    steps: int = Field(default=100, ge=1)
    """Optimizer steps."""
    seed: int = 0
    """Seeds the order of tasks, the engine and the trainer."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of every environment, below its own."""
    rollout: RolloutTable = Field(default_factory=dict)
    """Fields of `RLMConfig` for every environment, over the model's own profile."""
    allow_forks: bool = True
    """Accept a chat template that rewrites history, which makes a separate sample of each rewritten turn."""
    trainer: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    groups: GroupsConfig = GroupsConfig()
    samples: SamplesConfig = SamplesConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    loss: LossConfig = LossConfig()
    teacher: TeacherConfig | None = None
    supervised: SupervisedConfig | None = None
    sync: SyncConfig = SyncConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    engine: EngineOptions = EngineOptions()
    engines: tuple[TrainEngineEntry, ...] = ()
    """Instead of `[engine]`: every engine with its roles, local or by URL, following the trainer or fixed."""
    wandb: WandbConfig | None = None
    tensorboard: TensorboardConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuses a config with settings that contradict each other."""
        check_labels(self.environments)
        if problems := [message for applies, message in _contradictions(self) if applies]:
            raise ValueError("; ".join(problems))
        return self

    def engine_entries(self) -> tuple[TrainEngineEntry, ...]:
        """All engines: `[[engines]]`, or the one of `[engine]`."""
        return self.engines or (TrainEngineEntry(server=self.engine),)

    def as_toml(self) -> dict[str, Any]:
        """The keys that are set, as plain values; `TrainConfig.model_validate` reads them back."""
        unused = set() if self.engines else {"engines"}
        return self.model_dump(mode="json", exclude_none=True, exclude=unused)


def _contradictions(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    """Settings that exclude each other: whether that is so, and what to say then."""
    lora, loss, optimizer = config.trainer.lora, config.loss, config.optimizer
    yield (
        config.sync.method == "lora" and lora is None,
        'sync.method = "lora" needs trainer.lora; without an adapter use "disk"',
    )
    yield (
        config.sync.method == "lora" and lora is not None and lora.rank > LARGEST_ADAPTER_RANK,
        f'trainer.lora.rank: vLLM serves ranks up to {LARGEST_ADAPTER_RANK}; for more use sync.method = "disk"',
    )
    yield (
        loss.preset == "sft",
        'loss.preset = "sft" uses no reward; rlm-env sft trains on rollouts that were chosen',
    )
    yield (
        loss.norm == "constant" and loss.norm_tokens is None,
        'loss.norm = "constant" needs loss.norm_tokens: the most tokens that one rollout may train',
    )
    yield (
        loss.preset == "gspo" and loss.norm in ("token", "constant"),
        f'loss.preset = "gspo" has one ratio per sequence; loss.norm = "{loss.norm}" would weigh it by its length: use '
        '"sequence", or "rollout" or "role"',
    )
    yield (
        config.advantage.cost_weight > 0 and config.advantage.mode == "grpo_std",
        'advantage.cost_weight does not go with advantage.mode = "grpo_std", which would divide by the spread of the '
        'costs where all rewards are equal, and make the smallest difference a large advantage: use "grpo"',
    )
    yield (
        optimizer.warmup_steps > config.steps,
        f"optimizer.warmup_steps is {optimizer.warmup_steps}, but the run has {config.steps} steps",
    )
    supervised = config.supervised
    yield (
        supervised is not None and not supervised.train_root and not config.samples.train_sub_calls,
        "supervised.train_root and samples.train_sub_calls are both off: nothing of the rollouts would be trained",
    )
    yield from _without_effect(config)
    yield from engine_problems(config.engines, config.engine, config.model, config.samples, config.sync.method)
    yield from place_problems(config.engines, config.teacher)
    by_url = [entry.base_url for entry in config.engines if entry.followed and entry.base_url is not None]
    elsewhere = [url for url in by_url if not is_this_machine(endpoint_place(url)[0])]
    yield (
        config.sync.method == "nccl" and bool(elsewhere) and is_this_machine(config.sync.address),
        f"sync.address: {config.sync.address} is not this machine for the engine at "
        f"{elsewhere[0] if elsewhere else ''}: give the address under which it reaches the trainer",
    )
    for problem in argument_problems(config.engine.extra_args):
        yield True, f"engine.extra_args: {problem}"
    if config.teacher is not None:
        for problem in set_elsewhere(config.teacher.server.extra_args):
            yield True, f"teacher.server.extra_args: {problem}"


def _without_effect(config: TrainConfig) -> Iterator[tuple[bool, str]]:
    """Settings that another one leaves without any effect: whether that is so, and what to say then. Those of one table
    are refused by the table itself."""
    groups, advantage, teacher, sync = config.groups, config.advantage, config.teacher, config.sync
    yield (
        config.optimizer.schedule == "constant" and config.optimizer.final_fraction > 0,
        'optimizer.final_fraction has no effect with schedule = "constant"; use "linear" or "cosine"',
    )
    yield (
        not config.samples.train_root and config.samples.sub_weight != 1.0 and config.loss.norm != "constant",
        "samples.sub_weight has no effect with samples.train_root = false: there is no root token to weigh against",
    )
    yield (
        groups.cost != "sub_calls" and not advantage.cost_weight,
        f'groups.cost = "{groups.cost}" has no effect without advantage.cost_weight',
    )
    calls = [{**config.rollout, **entry.rollout}.get("max_sub_calls") for entry in config.environments]
    yield (
        advantage.cost_weight > 0 and groups.cost == "sub_calls" and set(calls) == {0},
        "advantage.cost_weight has no effect with rollout.max_sub_calls = 0, since no rollout has a sub-call: set "
        'groups.cost = "tokens"',
    )
    yield (
        teacher is not None and not teacher.reward_weight and advantage != AdvantageConfig(),
        "the table [advantage] has no effect with teacher.reward_weight = 0, with which the teacher alone decides: set "
        "teacher.reward_weight, or leave [advantage] out",
    )
    yield (
        sync.address != SyncConfig().address and sync.method != "nccl",
        f'sync.address has no effect with sync.method = "{sync.method}"; it belongs to "nccl"',
    )
    by_url = any(entry.followed and entry.base_url for entry in config.engines)  # which may have to be drained
    keeps = sync.in_flight == "keep" and sync.method != "lora" and not by_url
    yield (
        sync.drain_seconds != SyncConfig().drain_seconds and keeps,
        'sync.drain_seconds has no effect with sync.in_flight = "keep", which lets nothing end first; use "drain"',
    )


def load_train_config(path: Path, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """The config in a TOML file, with `overrides` (of the command line) over it. Raises ConfigError."""
    values = apply_overrides(read_config_file(path), overrides or {})
    values.setdefault("out", f"outputs/{path.stem}")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, TrainConfig, str(path))) from error


PLACE = frozenset({"base_url", "key_env", "concurrency", "timeout", "patience", "server"})
"""Keys of `[teacher]` that may change on resume."""
WAITING = frozenset({"address", "check_tolerance", "return_seconds", "drain_seconds"})
"""Keys of `[sync]` that may change on resume."""
RESUMABLE = frozenset({"steps", "out", "wandb", "tensorboard", "checkpoint", "held_out", "engine", "engines"})
"""Keys that may change on resume; `steps` may only grow, and only under a constant schedule; of `engines` what is
fixed stays."""


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    """Without the keys that say where teacher and engines are and how long they are waited for, and not what they
    say."""
    found = dict(values)
    for table, keys in (("teacher", PLACE), ("sync", WAITING)):
        if table in found:
            found[table] = {key: value for key, value in found[table].items() if key not in keys}
    return found


def check_train_resume(recorded: dict[str, Any], config: TrainConfig) -> None:
    """Raises ConfigError, naming the differences, where a run may not be resumed under this config."""
    new = config.as_toml()
    differences = config_differences(_without_places(recorded), _without_places(new), RESUMABLE)
    differences += config_differences({"engines": _fixed(recorded)}, {"engines": _fixed(new)}, frozenset())
    if new["steps"] < recorded["steps"]:
        differences.append(f"steps was {recorded['steps']}, is now {new['steps']} (it may only grow)")
    if new["steps"] != recorded["steps"] and config.optimizer.schedule != "constant":
        differences.append(f"steps was {recorded['steps']}: a {config.optimizer.schedule} schedule ends there")
    refuse_differences(config.out, differences)


def _fixed(values: dict[str, Any]) -> list[dict[str, Any]]:
    """What decides the answers of the engines that do not follow: their models and roles."""
    entries = (entry for entry in values.get("engines", ()) if entry["weights"] == "fixed")
    found = {(entry["model"], *sorted(entry["roles"])) for entry in entries}  # of replicas the number may change
    return [{"model": model, "roles": roles} for model, *roles in sorted(found)]
