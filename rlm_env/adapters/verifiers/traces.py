"""Stored rollouts as traces of verifiers, in the folders that its commands read.

    for episode in read_episodes(Path("export/oolong-rlm--rlm"), vf.WireTrace): ...
    vf-replay export/oolong-rlm--rlm

A folder for each environment and scaffold: traces.jsonl with one episode for each rollout, and the configuration of a
run of ours under `vf-eval` that would have made them. Scores, metrics and tokens are copied, never computed anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.cli.output import write_config
from verifiers.v1.configs.cli.eval import EvalConfig
from verifiers.v1.utils.trace_store import TRACES_FILE

from rlm_env.adapters.valid import valid_unicode
from rlm_env.adapters.verifiers.counters import rollout_metrics
from rlm_env.adapters.verifiers.taskset import OWN_ID, RLMTask, rollout_facts
from rlm_env.adapters.verifiers.trace_graph import TraceGraph
from rlm_env.rollout import Rollout, StopReason

FAILURES = {StopReason.ERROR: "harness_error", StopReason.CANCELLED: "cancelled"}
"""Stop conditions of rollouts that verifiers would make again."""


@dataclass(frozen=True, slots=True)
class TraceRun:
    """What the traces of a folder have in common."""

    config: EvalConfig
    """Of `vf-eval`."""
    started: datetime
    trained: bool = False
    """The rollouts are those of a training run."""


TaskOf = Callable[[Rollout], RLMTask | None]
"""The task of a rollout as a reference; None where it is not made any more."""


def write_traces(folder: Path, run: TraceRun, rollouts: Iterable[Rollout], task_of: TaskOf) -> Path:
    """Writes them into a folder, which verifiers takes for one of its runs. Returns the file of traces."""
    write_config(run.config, folder)
    path = folder / TRACES_FILE
    with path.open("w", encoding="ascii") as file:
        for rollout in rollouts:
            record = rollout_episode(rollout, run, task_of(rollout)).to_record(float_decimals=None)
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
    return path


def rollout_episode(rollout: Rollout, run: TraceRun, reference: RLMTask | None) -> vf.Episode:
    """A rollout as an episode of one trace. Without the reference, its task is the question alone."""
    rollout = valid_unicode(rollout)
    recorded = _recorded_task(reference or _bare_task(rollout))
    trace = _trace(rollout, run, recorded)
    episode = vf.Episode(id=rollout.id, env=vf.EnvInfo(id=OWN_ID, name=rollout.environment), task=recorded)
    episode.traces, episode.ok = [trace], trace.ok
    name = run.config.run.name or ""
    place = rollout.group
    if not run.trained or place is None:
        episode.run = vf.EvalRunInfo(id=name, name=name)
        return episode
    last = place.policy_version if place.last_policy_version is None else place.last_policy_version
    span = vf.PolicySpan(start=place.policy_version, end=last)
    if place.group is None:
        work: vf.WorkInfo = vf.EvalWorkInfo(step=place.step or 0, policy=span)
    else:
        work = vf.TrainWorkInfo(step=place.policy_version, policy=span)
        episode.group = vf.GroupInfo(id=f"{place.label}/{place.group}")
    episode.run = vf.TrainRunInfo(id=name, name=name, work=work)
    return episode


def _trace(rollout: Rollout, run: TraceRun, task: vf.TraceTask) -> vf.Trace:
    started = run.started.timestamp()
    sampling = rollout.info.get("sampling", {})
    models = str(rollout.info.get("root") or run.config.model), str(rollout.info.get("sub") or run.config.model)
    graph = TraceGraph(started)
    graph.add_rollout(rollout, models, (_sampling(sampling.get("root")), _sampling(sampling.get("sub"))))
    trace: vf.Trace = vf.Trace(id=rollout.id, task=task, agent=vf.AgentInfo(config=_agent(rollout, run, models[0])))
    trace.nodes, trace.calls = graph.nodes, graph.calls
    trace.timing = vf.Timing(start=started)
    trace.timing.agent = vf.AgentSpan(start=started, end=started + max(rollout.timing.total, 1e-6))
    trace.split_agent_time()
    trace.root_reply = rollout.answer
    trace.info["rollout"] = rollout_facts(rollout)
    trace.record_metrics(rollout_metrics(rollout))
    _add_score(trace, rollout)
    return trace


def _add_score(trace: vf.Trace, rollout: Rollout) -> None:
    """How it ended and what it is worth, under the names that `RLMTask` gives."""
    score = rollout.score
    trace.rewards[RLMTask.task_score.__name__] = None if score is None else vf.Reward(score=score.value)
    if score is not None:
        trace.record_metrics({f"score_{name}": float(value) for name, value in score.metrics.items()})
        trace.record_metric("answered", float(score.answered))
    trace.is_completed = True
    trace.stop_condition = FAILURES.get(rollout.stop_reason, "agent_completed")
    trace.ok = rollout.stop_reason not in FAILURES and (rollout.error is None or score is not None)
    if not trace.ok:
        kind = "HarnessError" if rollout.stop_reason in FAILURES else "TaskError"
        trace.errors.append(vf.Error(type=kind, message=rollout.error or str(rollout.stop_reason)))
        if rollout.stop_reason not in FAILURES:
            trace.stop_condition = "task_error"


def _recorded_task(task: Any) -> vf.TraceTask:
    return vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)


def _bare_task(rollout: Rollout) -> vf.Task:
    """What the record says of a task. It lacks what a reference must have, so that nothing scores another task."""
    own = {"id": rollout.task_id, "name": rollout.task_id, "prompt": rollout.question}
    return vf.Task(vf.WireTaskData.model_validate(own))


def _agent(rollout: Rollout, run: TraceRun, model: str) -> vf.AgentConfig:
    """The seat that played it, with its sampling."""
    seat = run.config.env.model_dump()["agent"]
    sampling = _sampling(rollout.info.get("sampling", {}).get("root"))
    client = run.config.client.model_dump()
    return vf.AgentConfig.model_validate({**seat, "model": model, "client": client, "sampling": sampling.model_dump()})


def _sampling(values: Mapping[str, Any] | None) -> vf.SamplingConfig:
    """Recorded sampling in the names of verifiers, what an engine has besides included."""
    own = {name: value for name, value in (values or {}).items() if value not in (None, [], {})}
    return vf.SamplingConfig(**{**own.pop("extra", {}), **own})
