"""Draws the reward curve of a training run, or of several seeds with their mean and spread, as a PNG.

Training reward by step and held-out scores with their intervals; for supervised training, the losses. Needs matplotlib
(the extra `[report]`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rlm_env.runs.errors import ConfigError
from rlm_env.train.report.report import Line, RunMetrics

CURVE = "reward.png"
SMOOTHED = 5
"""Steps over which the bold line of a single run is averaged: the step itself and those before it."""
COLORS = ("#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be123c")
TRAINING = "#1d4ed8"


def draw_curve(runs: Sequence[RunMetrics], path: Path) -> Path:
    """Draws to `path`. Raises ConfigError without matplotlib, and where there is nothing to draw."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"a curve needs the package {error.name!r}: pip install 'rlm-env[report]'") from error
    rewarded = any("reward/mean" in line for run in runs for line in run.steps)
    key = "reward/mean" if rewarded else "loss"
    if not any(key in line for run in runs for line in run.steps):
        raise ConfigError(f"{', '.join(run.name for run in runs)}: no step has a reward or a loss yet")

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    axes = figure.subplots()
    label = "reward in training" if rewarded else "loss in training"
    _draw_training(axes, [_series(run.steps, key) for run in runs], label)
    for (name, held_out), color in zip(_held_out_keys(runs).items(), cycle(COLORS), strict=False):
        _draw_held_out(axes, runs, held_out, name, color)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("score" if rewarded else "loss, nats per token")
    several = f"{len(runs)} runs: mean, and one standard deviation to each side"
    axes.set_title(runs[0].name if len(runs) == 1 else several)
    if rewarded:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _held_out_keys(runs: Sequence[RunMetrics]) -> dict[str, str]:
    """Label in the legend -> metric."""
    keys = sorted({key for run in runs for line in run.evaluations for key in line})
    scores = {f"held out: {key.split('/')[1]}": key for key in keys if key.endswith("/score")}
    return scores or ({"held-out loss": "eval/loss"} if "eval/loss" in keys else {})


def _series(lines: Sequence[Line], key: str) -> dict[int, float]:
    return {line["step"]: line[key] for line in lines if key in line}


def _draw_training(axes: Any, series: Sequence[dict[int, float]], label: str) -> None:
    """Draws the training reward: smoothed for one run, with its spread for several."""
    if len(series) == 1:
        steps, values = zip(*series[0].items(), strict=True)
        axes.plot(steps, values, color=TRAINING, alpha=0.3, linewidth=1)
        smooth = [fmean(values[max(0, end - SMOOTHED) : end]) for end in range(1, len(values) + 1)]
        axes.plot(steps, smooth, color=TRAINING, linewidth=2, label=f"{label}, mean of {SMOOTHED} steps")
        return
    steps, means, spreads = _over_runs(series)
    axes.plot(steps, means, color=TRAINING, linewidth=2, label=label)
    _fill(axes, steps, means, spreads, TRAINING)


def _draw_held_out(axes: Any, runs: Sequence[RunMetrics], key: str, label: str, color: str) -> None:
    """Draws a held-out score with its intervals."""
    series = [_series(run.evaluations, key) for run in runs]
    if len(series) > 1:
        steps, means, spreads = _over_runs(series)
        axes.errorbar(steps, means, yerr=spreads, color=color, marker="o", capsize=3, label=label)
        return
    steps, values = zip(*series[0].items(), strict=True)
    bounds = [_series(runs[0].evaluations, f"{key.removesuffix('/score')}/{end}") for end in ("low", "high")]
    errors = None
    if all(step in bound for step in steps for bound in bounds):
        below = [value - bounds[0][step] for step, value in zip(steps, values, strict=True)]
        above = [bounds[1][step] - value for step, value in zip(steps, values, strict=True)]
        errors, label = [below, above], f"{label} (95 % interval)"
    first, last = _weights(runs[0], key, steps)
    spans = [after - before for before, after in zip(first, last, strict=True)]
    wide = [[0] * len(spans), spans] if any(spans) else None
    axes.errorbar(first, values, yerr=errors, xerr=wide, color=color, marker="o", capsize=3, label=label)


def _weights(run: RunMetrics, key: str, steps: Sequence[int]) -> tuple[list[float], list[float]]:
    """The optimizer steps of the oldest and of the newest weights that each evaluation was made with."""
    found = (_series(run.evaluations, f"{key.removesuffix('/score')}/policy_version/{end}") for end in ("min", "max"))
    oldest, newest = ([ends.get(step, step) for step in steps] for ends in found)
    return oldest, newest


def _over_runs(series: Sequence[dict[int, float]]) -> tuple[list[int], list[float], list[float]]:
    """The steps that every run has reached, with means and sample standard deviations over the runs."""
    steps = sorted(set.intersection(*(set(run) for run in series)))
    values = [[run[step] for run in series] for step in steps]
    return steps, [*map(fmean, values)], [*map(stdev, values)]


def _fill(axes: Any, steps: Sequence[int], means: Sequence[float], spreads: Sequence[float], color: str) -> None:
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
