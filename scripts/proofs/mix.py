"""The part `mix` of `scripts/prove_training.py`: tiny-rlm trained on all environments at once, by one policy for both
roles, tools included.

Each seed is trained once on all environments of `configs/train/tiny_mix.toml`, and once on all but one, which is
another one for each seed; that one is evaluated with the weights from before and after. Scores are compared task by
task. What does not rise, or falls, is reported like what does.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from proofs.work import Work, evaluation, held_out, minutes, spread, status, training
from rlm_env.evals.stats import Estimate, paired_difference
from rlm_env.rollout import Rollout, read_rollouts
from rlm_env.train.report.metrics import read_metrics

PART = "mix"
CONFIG = Path(__file__).parents[2] / "configs" / "train" / "tiny_mix.toml"
LEFT_OUT = ("needle-rlm", "math-python-rlm", "codeqa-rlm")
"""The environment that the first, second, third seed is not trained on; further seeds begin again."""
TASKS = 48
"""Tasks on which an environment that was left out is evaluated."""

Scores = dict[str, list[float]]
"""Scores by task."""


def mix_plan(out: Path, seeds: Sequence[int]) -> list[Work]:
    """The trainings on all environments, those on all but one, and the evaluations of that one."""
    config = str(CONFIG.relative_to(Path.cwd())) if CONFIG.is_relative_to(Path.cwd()) else str(CONFIG)
    plan = [training(PART, out, f"mix-{seed}", seed, config=config) for seed in seeds]
    entries = environments()
    for seed, left_out in _left_out(seeds):
        name = f"mix-without-{left_out}-{seed}"
        rest = ", ".join(_inline(entry) for entry in entries if entry["name"] != left_out)
        plan.append(training(PART, out, name, seed, f"environments=[{rest}]", config=config))
        options = next(entry.get("options", {}) for entry in entries if entry["name"] == left_out)
        settings = [f"options.{key}={_inline(value)}" for key, value in options.items()]
        for moment, model in (("before", "tiny-rlm"), ("after", str(out / name / "model"))):
            folder = f"mix-left-out-{left_out}-{seed}-{moment}"
            plan.append(evaluation(PART, out, folder, left_out, model, TASKS, "seed=" + str(seed), *settings))
    return plan


def mix_results(out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """By environment: scores before and after, by seed, and their paired difference over tasks and seeds; the same for
    each environment that was left out. Of the runs that are complete; empty where none is."""
    found: dict[str, Any] = {}
    runs = {seed: out / f"mix-{seed}" for seed in seeds}
    complete = {seed: folder for seed, folder in runs.items() if status(folder) == "complete"}
    if complete:
        found["mix"] = _all_environments(complete)
        found["mix_minutes"] = [minutes(read_metrics(folder / "metrics.jsonl")) for folder in complete.values()]
    left_out = {}
    for seed, name in _left_out(seeds):
        folders = [out / f"mix-left-out-{name}-{seed}-{moment}" for moment in ("before", "after")]
        if all(status(folder) == "complete" for folder in folders):
            before, after = (_by_task(read_rollouts(folder / "rollouts.jsonl")) for folder in folders)
            left_out[name] = _change([before], [after])
    return found | ({"mix_left_out": left_out} if left_out else {})


def mix_table(results: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown; none without results."""
    lines = []
    for key, title in (("mix", "trained on all"), ("mix_left_out", "trained on the others alone")):
        if key not in results:
            continue
        lines += ["", f"| {title} | held-out score before | after | difference, paired by task | |"]
        lines += ["| --- | ---: | ---: | ---: | --- |"]
        for name, change in results[key].items():
            mean, low, high = (change[part] for part in ("mean", "low", "high"))
            verdict = "rises" if low > 0 else "falls" if high < 0 else "open"
            scores = (spread(change[moment]) for moment in ("before", "after"))
            lines.append(f"| `{name}` | {' | '.join(scores)} | {mean:+.2f} [{low:+.2f}, {high:+.2f}] | {verdict} |")
    if "mix_minutes" in results:
        lines += ["", f"Minutes a seed: {spread(results['mix_minutes'])}."]
    return lines


def environments() -> list[dict[str, Any]]:
    """The entries of the config."""
    return tomllib.loads(CONFIG.read_text("utf-8"))["environments"]


def _left_out(seeds: Sequence[int]) -> list[tuple[int, str]]:
    return [(seed, LEFT_OUT[i % len(LEFT_OUT)]) for i, seed in enumerate(seeds)]


def _all_environments(runs: Mapping[int, Path]) -> dict[str, Any]:
    """Of training runs by seed."""
    moments: list[dict[str, list[Scores]]] = [defaultdict(list), defaultdict(list)]
    for folder in runs.values():
        steps = max(line["step"] for line in read_metrics(folder / "metrics.jsonl"))
        for by_label, step in zip(moments, (0, steps), strict=True):
            rollouts = list(held_out(folder, step))
            for label in dict.fromkeys(rollout.group.label for rollout in rollouts if rollout.group is not None):
                mine = (each for each in rollouts if each.group is not None and each.group.label == label)
                by_label[label].append(_by_task(mine))
    before, after = moments
    return {label: _change(before[label], after[label]) for label in before}


def _by_task(rollouts: Iterable[Rollout]) -> Scores:
    scores: Scores = defaultdict(list)
    for rollout in rollouts:
        if rollout.score is not None:
            scores[rollout.task_id].append(rollout.score.value)
    return scores


def _change(before: Sequence[Scores], after: Sequence[Scores]) -> dict[str, Any]:
    """Mean scores by seed, and the paired difference over the tasks of all seeds."""
    ours, theirs = (_merged(each) for each in (after, before))
    difference = paired_difference(ours, theirs)
    assert difference is not None, "both evaluations have the same tasks"
    means = {"before": [_mean(each) for each in before], "after": [_mean(each) for each in after]}
    return means | _interval(difference)


def _merged(by_seed: Sequence[Scores]) -> Scores:
    return {f"{seed}/{task}": scores for seed, found in enumerate(by_seed) for task, scores in found.items()}


def _mean(scores: Scores) -> float:
    return fmean(fmean(values) for values in scores.values())


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def _inline(value: Any) -> str:
    """A value as TOML writes it within a line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)
