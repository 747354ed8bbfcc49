"""What a training run has besides rollouts: its curve, and of each group when it was trained and with which advantages.

Rewards and advantages are computed as training does (`train/rl/groups.py`), from what is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_env.evals.rollout_stats import RolloutStats, stats_of
from rlm_env.lines import parse_record
from rlm_env.rollout import Rollout
from rlm_env.runs.config import RECORD
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import ROLLOUTS, read_run_config
from rlm_env.runs.jsonl import read_jsonl
from rlm_env.runs.profile import rollout_profile
from rlm_env.train.report.curves import curves
from rlm_env.train.report.metrics import METRICS
from rlm_env.train.report.report import before_after_table, load_run, training_notes
from rlm_env.train.rl.advantage import group_advantages
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import rollout_config
from rlm_env.train.rl.groups import cost_of, reward_of
from rlm_env.train.run_files import HELD_OUT, JOURNAL
from rlm_env.view.runs import ViewedRun, local_model, shown_table


@dataclass(slots=True)
class _Member:
    key: str
    member: int
    reward: float | None
    cost: float
    version: int


@dataclass(slots=True)
class _Fate:
    """What became of a group."""

    steps: dict[int, int] = field(default_factory=dict)
    """Group -> the step that trained it."""
    dropped: dict[int, str] = field(default_factory=dict)
    """Group -> why it was dropped."""


class ViewedTraining(ViewedRun):
    """A run of `rlm-env train` or `rlm-env sft`."""

    kind = "train"

    def __init__(self, name: str, path: Path) -> None:
        """Raises ConfigError where config.toml cannot be read."""
        values = read_run_config(path)
        self.record: dict[str, Any] = values.pop(RECORD, {})
        self.values = values
        try:
            self.config: TrainConfig | None = TrainConfig.model_validate(values)
        except ValidationError:  # supervised training, or another version: there are no groups then
            self.config = None
        self._members: dict[int, dict[str, _Member]] = defaultdict(dict)
        files = [file for file in (ROLLOUTS, HELD_OUT) if file == ROLLOUTS or self.config is not None]
        super().__init__(name, path, files)

    def _stats_of(self, rollout: Rollout) -> RolloutStats:
        place = rollout.group
        if self.config is not None and place is not None and place.group is not None:
            groups = self.config.groups
            self._members[place.group][rollout.id] = _Member(
                rollout.id,
                place.member,
                reward_of(rollout, groups.unfinished),
                cost_of(rollout, groups.cost),
                place.policy_version,
            )
        return stats_of(rollout, read_code=False)

    def _facts(self) -> dict[str, Any]:
        values = self.values
        return {
            "title": f"{self.path.name}: training of {values.get('model')}",
            "status": self.status(),
            "started": self.record.get("started"),
            "environments": [one.get("label") or one.get("name") for one in values.get("environments", ())],
            "model": values.get("model"),
            "steps": values.get("steps"),
            "versions": self.record.get("versions", {}),
        }

    def state(self) -> Any:
        metrics = self.path / METRICS
        return super().state(), metrics.stat().st_size if metrics.exists() else 0

    def numbers(self, *, programs: bool = True) -> dict[str, Any]:
        """The table before and after, as the console prints it, and the lines of the curve."""
        del programs  # no table has any
        if not (self.path / METRICS).exists():
            return {"title": self.path.name, "tables": [], "notes": [], "warnings": [], "curves": []}
        try:
            run = load_run(self.path)
        except ConfigError as error:
            return {"title": self.path.name, "tables": [], "notes": [], "warnings": [str(error)], "curves": []}
        return {
            "title": self.path.name,
            "tables": [shown_table(before_after_table([run]))],
            "notes": training_notes([run]),
            "warnings": [],
            "curves": curves(run.steps, run.evaluations),
        }

    def limits(self, rollout: Mapping[str, Any]) -> dict[str, Any]:
        label = (rollout.get("group") or {}).get("label")
        entry = next((one for one in self.config.environments if one.label == label), None) if self.config else None
        if self.config is None or entry is None:
            return {}
        try:
            profile = rollout_profile(self.model_folder())
            return rollout_config(self.config, entry, profile).model_dump(mode="json")
        except ConfigError:  # another version's settings
            return {}

    def model_folder(self) -> Path | None:
        return local_model(self.values.get("model", ""))

    def groups(self) -> list[dict[str, Any]]:
        """Every group whose rollouts are stored: the step that trained it or why it was dropped, and its members with
        reward, advantage and off-policy steps."""
        fate = _read_journal(self.path / JOURNAL)
        return [self._group(number, fate) for number in sorted(self._members)]

    def _group(self, number: int, fate: _Fate) -> dict[str, Any]:
        assert self.config is not None  # only then are there members
        members = sorted(self._members[number].values(), key=lambda one: one.member)
        rewards = [one.reward for one in members]
        try:
            advantages: list[float] = group_advantages(rewards, self.config.advantage, [one.cost for one in members])
        except ValueError:
            advantages = [0.0] * len(members)
        step = fate.steps.get(number)
        return {
            "group": number,
            "step": step,
            "dropped": fate.dropped.get(number),
            "size": self.config.groups.size,
            "members": [
                {
                    "key": one.key,
                    "member": one.member,
                    "reward": one.reward,
                    "advantage": advantage,
                    "version": one.version,
                    "off_policy": None if step is None else step - 1 - one.version,
                }
                for one, advantage in zip(members, advantages, strict=True)
            ],
        }


def _read_journal(path: Path) -> _Fate:
    """Raises ConfigError where a line is damaged."""
    fate = _Fate()

    def add(line: str) -> None:
        event = parse_record(line)
        if event.get("event") == "batch":
            fate.steps |= dict.fromkeys(event["groups"], event["step"])
        elif event.get("event") == "dropped":
            fate.dropped[event["group"]] = event["reason"]

    for _ in read_jsonl(path, add):
        pass
    return fate
