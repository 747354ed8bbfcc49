"""The folder of an eval or of a training run as folders of traces: which tasks, models and settings they had.

A task is stored as the reference of our taskset, so that `vf-replay` can score it; where the environment does not make
the same task any more, or is not there, as its question alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import verifiers.v1 as vf
from pydantic import ValidationError
from verifiers.v1.configs.cli.eval import EvalConfig

from rlm_env.adapters.verifiers.taskset import OWN_ID, RLMTask, RLMTaskData
from rlm_env.adapters.verifiers.traces import TraceRun, write_traces
from rlm_env.evals.stored import open_stored
from rlm_env.rollout import Rollout
from rlm_env.runs.config import RECORD, merge
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import ROLLOUTS, latest_rollouts, read_run_config
from rlm_env.runs.models import resolve_model
from rlm_env.runs.options import MODEL_FOLDER, environment_options
from rlm_env.train.rl.config import TrainConfig, TrainEnvironment
from rlm_env.train.rl.journal import TaskPlace, read_journal
from rlm_env.train.run_files import HELD_OUT, JOURNAL

LOCAL_VLLM = "http://127.0.0.1:8000/v1"
"""The endpoint that is written down of a run whose vLLM was started for it."""
NO_KEY = "NO_KEY"
Warn = Callable[[str], None]


def write_eval_traces(folder: Path, out: Path, warn: Warn) -> list[Path]:
    """A folder of traces for each scaffold of an eval on one environment; returns the files of traces.

    `warn` is called with a sentence about what cannot be scored again. Raises ConfigError and RecordError on damaged
    files.
    """
    stored = open_stored(folder)
    config, record = stored.config, stored.record
    root = config.root
    options = _options(config.options, root.tokens or root.model, None if root.tokens else root.base_url)
    reference = {"environment": config.environment, "split": config.split, "seed": config.seed, "options": options}
    taskset = {"id": OWN_ID, **reference, "num_tasks": record["tasks"]}
    tasks = _listed(RLMTaskData.model_validate(reference), record["tasks"])
    label = config.environments[0].label
    client = {"type": "eval", "base_url": root.base_url or LOCAL_VLLM, "api_key_var": root.key_env or NO_KEY}
    paths = []
    for scaffold in config.scaffolds:
        settings = record.get("scaffolds", {}).get(scaffold, {}).get("config", {})
        name = f"{label}--{scaffold}"
        harness = {"id": OWN_ID, "scaffold": scaffold, "rollout": settings}
        common = {"model": root.model, "client": client, "num_rollouts": config.repeats}
        run = _trace_run(out, name, taskset, harness, record, **common)
        of_it = (one for one in latest_rollouts(folder / ROLLOUTS) if one.scaffold == scaffold)
        checked = _Checked(lambda one: tasks.get(one.task_id), name, warn)
        paths.append(write_traces(out / name, run, of_it, checked))
        checked.report()
    return paths


def write_training_traces(folder: Path, out: Path, warn: Warn) -> list[Path]:
    """Folders of traces for the training and the held-out rollouts of each environment. Raises ConfigError and
    RecordError on damaged files."""
    values = read_run_config(folder)
    record = values.pop(RECORD, {})
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{folder} is not the run of `rlm-env train` of this version") from error
    drawn = read_journal(folder / JOURNAL).drawn
    paths = []
    for entry in config.environments:
        harness = {"id": OWN_ID, "rollout": merge(config.rollout, entry.rollout)}
        for file, split, kind in ((ROLLOUTS, "train", "train"), (HELD_OUT, "eval", "held-out")):
            if not (folder / file).exists():
                continue
            name = f"{entry.label}--{kind}"
            tasks = _TrainingTasks(config, entry, split, drawn)
            checked = _Checked(tasks.of, name, warn)
            run = _trace_run(out, name, tasks.taskset, harness, record, model=config.model, trained=True)
            of_it = (one for one in latest_rollouts(folder / file) if one.group and one.group.label == entry.label)
            paths.append(write_traces(out / name, run, of_it, checked))
            checked.report()
    return paths


REFERENCE = ("environment", "split", "seed", "options")
"""What names an environment."""


class _TrainingTasks:
    """The tasks of an environment in a training run: by the place that the journal names, or held out."""

    def __init__(
        self, config: TrainConfig, entry: TrainEnvironment, split: str, drawn: Mapping[int, TaskPlace]
    ) -> None:
        self._config, self._entry, self._split, self._drawn = config, entry, split, drawn
        self._listed = _listed(self._reference(-1), config.held_out.n) if split == "eval" else {}

    @property
    def taskset(self) -> dict[str, Any]:
        """The configuration of our taskset."""
        return {"id": OWN_ID, **self._reference(-1).model_dump(include={*REFERENCE})}

    def of(self, rollout: Rollout) -> RLMTaskData | None:
        """The reference to the task of a rollout."""
        group = rollout.group.group if rollout.group else None
        if group is None or group not in self._drawn:
            return self._listed.get(rollout.task_id)
        place = self._drawn[group]
        own = {"id": rollout.task_id, "name": rollout.task_id, "prompt": rollout.question}
        return self._reference(place.stage).model_copy(update={**own, "index": place.index})

    def _reference(self, stage: int) -> RLMTaskData:
        """The environment at a stage of its curriculum (-1: before the first one), or held out."""
        entry = self._entry
        further = entry.curriculum[stage].options if stage >= 0 else {}
        if self._split == "eval":
            further = entry.eval_options
        options = _options(merge(merge(self._config.options, entry.options), further), self._config.model)
        own = {"environment": entry.name, "split": self._split, "seed": self._config.seed, "options": options}
        return RLMTaskData.model_validate(own)


def _trace_run(
    out: Path, name: str, taskset: Mapping[str, Any], harness: Mapping[str, Any], record: Mapping[str, Any], **more: Any
) -> TraceRun:
    trained = more.pop("trained", False)
    seat = {"harness": harness, "runtime": {"type": "subprocess"}}
    more.setdefault("client", {"type": "eval", "base_url": LOCAL_VLLM, "api_key_var": NO_KEY})
    values = {
        "env": {"taskset": taskset, "agent": seat},
        "run": {"name": name},
        "output_dir": str(out.resolve()),
        "push": False,
        **more,
    }
    try:
        config = EvalConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: its settings are not those of this version: {error}") from error
    started = datetime.fromisoformat(record["started"]) if "started" in record else datetime.now(UTC)
    return TraceRun(config, started, trained)


def _options(options: Mapping[str, Any], model: str, base_url: str | None = None) -> dict[str, Any]:
    """Options of an environment; those that need the model's folder are left out where there is none."""
    if MODEL_FOLDER not in options.values():
        return dict(options)
    try:
        return environment_options(options, resolve_model(model, base_url).folder)
    except ConfigError:
        return {key: value for key, value in options.items() if value != MODEL_FOLDER}


def _listed(reference: RLMTaskData, count: int) -> dict[str, RLMTaskData]:
    """Task id -> reference, of the first tasks of a split; none where the environment cannot be made."""
    taskset = {"id": OWN_ID, **reference.model_dump(include={*REFERENCE}), "num_tasks": max(count, 1)}
    try:
        tasks: Iterable[vf.Task] = vf.load_taskset(vf.taskset_config_type(OWN_ID).model_validate(taskset))
        return {str(task.data.id): RLMTaskData.model_validate(task.data.model_dump()) for task in tasks}
    except Exception:  # whatever an environment of another version, or none, does
        return {}


class _Checked:
    """References to tasks that are made again as they were, and how many are not."""

    def __init__(self, reference_of: Callable[[Rollout], RLMTaskData | None], name: str, warn: Warn) -> None:
        self._reference_of, self._name, self._warn = reference_of, name, warn
        self._known: dict[tuple[str, int], str | None] = {}
        """Environment and index -> the question of the task there."""
        self._lost = 0

    def __call__(self, rollout: Rollout) -> RLMTask | None:
        """The reference to the task of a rollout, if it leads to that task."""
        data = self._reference_of(rollout)
        if data is not None and self._question(data) == rollout.question:
            return RLMTask(data)
        self._lost += 1
        return None

    def report(self) -> None:
        """Tells how many rollouts nothing can score again."""
        if self._lost:
            self._warn(
                f"{self._name}: {self._lost:,} of the rollouts are of tasks that the environment does not make any "
                "more; they hold the question alone, and vf-replay cannot score them"
            )

    def _question(self, data: RLMTaskData) -> str | None:
        key = data.model_dump_json(include={*REFERENCE}), data.index
        if key not in self._known:
            try:
                self._known[key] = data.task().question
            except Exception:  # whatever an environment of another version does
                self._known[key] = None
        return self._known[key]
