"""A supervised share: saved rollouts whose likelihood each step trains beside the reward.

They are read, filtered and encoded as `rlm-env sft` does it, and go round in an order that depends on seed and step
alone, so that a resumed run goes on with the same ones. The loss is in `Learner.step`.
"""

from __future__ import annotations

from pathlib import Path

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.profile import load_profile
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.sft.chosen import choose
from rlm_env.train.sft.config import SFTConfig
from rlm_env.train.sft.trainer import Plan


def supervised_plan(config: TrainConfig, model: Path) -> Plan | None:
    """The samples of each step; None without `[supervised]`. `model`: the policy's folder. Raises ConfigError where a
    file is missing or damaged, or nothing is left of them."""
    table = config.supervised
    if table is None:
        return None
    reading = SFTConfig(
        model=config.model,
        rollouts=table.rollouts,
        out=config.out,
        keep=table.keep,
        samples=config.samples.model_copy(update={"train_root": table.train_root}),
        batch_size=table.per_step,
        held_out=0.0,
        seed=config.seed,
        trainer=config.trainer,
    )
    try:
        chosen = choose(reading, ChatTokens(model, load_profile(model).get("renderer")))
    except ConfigError as error:
        raise ConfigError(f"supervised.{error}") from error
    if not chosen.samples:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in chosen.dropped.most_common())
        raise ConfigError(
            f"supervised: none of the {chosen.read} rollouts is left to train{f' ({reasons})' if reasons else ''}: "
            "loosen [supervised.keep], or give other rollouts"
        )
    return Plan(chosen.samples, reading)
