"""A supervised share: saved rollouts whose likelihood each step trains beside the reward.

They are read, filtered and encoded as `rlm-env sft` does it, and go round in an order that depends on seed and step
alone, so that a resumed run goes on with the same ones. The loss is in `Learner.step`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.profile import load_profile
from rlm_env.train.learner.samples import Sample
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.sft.chosen import Chosen, choose
from rlm_env.train.sft.config import SFTConfig
from rlm_env.train.sft.trainer import epoch_order, hash_samples


@dataclass(frozen=True, slots=True)
class SupervisedShare:
    """The supervised samples of a run, `per_step` of them in each step."""

    chosen: Chosen
    per_step: int
    seed: int

    @property
    def sha256(self) -> str:
        """A hash of the samples, which must be the same when a run is resumed."""
        return hash_samples(self.chosen.samples)

    def batch(self, step: int) -> list[Sample]:
        """The samples of a step, counted from 0. They go round without a gap: a batch may hold the end of one round and
        the beginning of the next, and where there are fewer samples than `per_step`, some of them twice."""
        samples = self.chosen.samples
        places = [divmod(place, len(samples)) for place in range(step * self.per_step, (step + 1) * self.per_step)]
        orders = {round_: epoch_order(len(samples), self.seed, round_) for round_ in {round_ for round_, _ in places}}
        return [samples[orders[round_][index]] for round_, index in places]

    def describe(self) -> str:
        """How many samples there are, of how many rollouts, and why others were left out, in words."""
        found = f"{len(self.chosen.samples):,} samples of {self.chosen.kept:,} of {self.chosen.read:,} rollouts"
        return f"{found} (left out: {self.chosen.reasons})" if self.chosen.dropped else found


def supervised_share(config: TrainConfig, model: Path) -> SupervisedShare | None:
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
        held_out=0.0,
        seed=config.seed,
        trainer=config.trainer,
    )
    try:
        chosen = choose(reading, ChatTokens(model, load_profile(model).get("renderer")))
    except ConfigError as error:
        raise ConfigError(f"supervised.{error}") from error
    if not chosen.samples:
        raise ConfigError(f"supervised: {chosen.nothing_left}: loosen [supervised.keep], or give other rollouts")
    return SupervisedShare(chosen, table.per_step, config.seed)
