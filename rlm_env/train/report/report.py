"""The table that a training run ends with, from its metrics.jsonl: before and after, for one run or several seeds.

On a terminal or as Markdown, from whichever metrics the run has. The curve is drawn in `curve.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.tables import Cells, print_tables
from rlm_env.train.report.metrics import METRICS, read_metrics

Line = dict[str, Any]
AVERAGED = 5
"""Most steps, at the beginning and at the end of a run, over which training metrics are averaged."""

_HELD_OUT = {
    "score": "score",
    "turns": "turns",
    "sub_calls": "sub-calls",
    "root_prompt_tokens_max": "longest root prompt, tokens",
    "error": "failed",
}
_TRAINING = {
    "rollouts/truncated": "ended by a limit",
    "rollouts/failed": "failed",
    "turns/mean": "turns",
    "sub_calls/mean": "sub-calls",
    "sub_calls/solved": "sub-calls of solved ones",
    "tokens/per_rollout": "tokens sampled",
    "groups/zero_advantage": "zero-advantage groups",
    "loss": "loss",
    "entropy": "entropy, nats",
    "mismatch_kl": "mismatch KL",
    "seconds/step": "seconds per step",
    "tokens_per_second": "tokens sampled per second",
}


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """The lines of a run's metrics.jsonl, in order."""

    name: str
    steps: list[Line]
    """One line per optimizer step."""
    evaluations: list[Line]
    """One line per held-out evaluation; its `step` is how many updates came before."""


def load_run(folder: Path) -> RunMetrics:
    """Reads the metrics in a run's folder. Raises ConfigError where there are none."""
    lines = read_metrics(folder / METRICS)
    if not lines:
        raise ConfigError(
            f"{folder} has no {METRICS} with a line in it: no step has ended yet, or it is no training run"
        )
    evaluations = [line for line in lines if any(key.startswith("eval/") for key in line)]
    steps = [line for line in lines if line not in evaluations]
    return RunMetrics(folder.resolve().name, steps, evaluations)


def print_training_report(console: Console, runs: Sequence[RunMetrics]) -> None:
    """Prints the table and its notes."""
    print_tables(console, [before_after_table(runs)], training_notes(runs))


def before_after_table(runs: Sequence[RunMetrics]) -> Cells:
    """Held-out metrics at the first and the last evaluation, then training metrics of the first and the last steps; for
    several runs, mean and sample standard deviation over the runs. Rows without numbers are left out."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs: {', '.join(run.name for run in runs)}"
    table = Cells(title, ["", "before", "after", "change"])
    for environment in _environments(runs):
        rows = [(f"  {name}", f"eval/{environment}/{key}") for key, name in _HELD_OUT.items()]
        _add_block(table, f"held out: {environment}", rows, runs, _evaluation)
    _add_block(table, "held out", [("  loss", "eval/loss")], runs, _evaluation)
    names = sorted({key for run in runs for line in run.steps for key in line if key.startswith(("reward/", "pass@"))})
    rewards = ["reward/mean", *(name for name in names if name != "reward/mean")] if names else []
    rows = [(f"  {name.replace('/mean', '').replace('/', ' ')}", name) for name in rewards]
    rows += [(f"  {name}", key) for key, name in _TRAINING.items()]
    _add_block(table, "training", rows, runs, _averaged)
    return table


def training_notes(runs: Sequence[RunMetrics]) -> list[str]:
    """What a reader must know to read the table, one sentence each."""
    found = []
    if any(run.evaluations for run in runs):
        first = sorted({run.evaluations[0]["step"] for run in runs if run.evaluations})
        last = sorted({run.evaluations[-1]["step"] for run in runs if run.evaluations})
        which = f"held out: after {_listed(first)} and after {_listed(last)} updates"
        found.append(which + ("; [95 % interval over tasks]" if len(runs) == 1 and _environments(runs) else ""))
    if any(run.steps for run in runs):
        steps = sorted({run.steps[-1]["step"] for run in runs if run.steps})
        widths = sorted({_width(run) for run in runs if run.steps})
        found.append(f"training: means of the first and the last {_listed(widths)} of {_listed(steps)} steps")
    if len(runs) > 1:
        found.append(f"mean ± sample standard deviation of {len(runs)} runs")
    return found


def _listed(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))


def _environments(runs: Sequence[RunMetrics]) -> list[str]:
    keys = {key for run in runs for line in run.evaluations for key in line}
    return sorted(key.split("/")[1] for key in keys if key.startswith("eval/") and key.endswith("/score"))


def _add_block(
    table: Cells,
    heading: str,
    rows: Sequence[tuple[str, str]],
    runs: Sequence[RunMetrics],
    before_after: Callable[[RunMetrics, str], tuple[float, float] | None],
) -> None:
    """Adds rows below a heading; without rows there is no heading either."""
    block = []
    for name, key in rows:
        pairs = [pair for run in runs if (pair := before_after(run, key)) is not None]
        if pairs:
            before, after = zip(*pairs, strict=True)
            change = [b - a for a, b in zip(before, after, strict=True)]
            cells = [_cell(before), _cell(after), _cell(change, signed=True)]
            if len(runs) == 1 and key.endswith("/score"):
                cells[:2] = (f"{cells[place]} {_interval(runs[0], key, place)}".rstrip() for place in (0, 1))
            block.append([name, *cells])
    if block:
        table.rows += [[heading, "", "", ""], *block]


def _evaluation(run: RunMetrics, key: str) -> tuple[float, float] | None:
    """The metric at the first and the last evaluation; None with fewer than two evaluations."""
    values = [line[key] for line in run.evaluations if key in line]
    return (values[0], values[-1]) if len(values) > 1 else None


def _averaged(run: RunMetrics, key: str) -> tuple[float, float] | None:
    """The means of the metric over the first and the last steps that have it; None with fewer than two."""
    values = [line[key] for line in run.steps if key in line]
    if len(values) < 2:
        return None
    width = min(_width(run), len(values) // 2)
    return fmean(values[:width]), fmean(values[-width:])


def _width(run: RunMetrics) -> int:
    return max(1, min(AVERAGED, len(run.steps) // 2))


def _interval(run: RunMetrics, key: str, place: int) -> str:
    """The 95 % interval of the first evaluation (`place` 0) or of the last one (1) as text; empty without one."""
    line = [line for line in run.evaluations if key in line][-place]
    low, high = (line.get(f"{key.removesuffix('/score')}/{end}") for end in ("low", "high"))
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _cell(values: Sequence[float], *, signed: bool = False) -> str:
    mean = fmean(values)
    text = _number(mean, signed)
    return f"{text} ± {_number(stdev(values))}" if len(values) > 1 else text


def _number(value: float, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if value and abs(value) < 1e-3:
        return f"{value:{sign}.1e}"
    if abs(value) >= 100:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.1f}" if abs(value) >= 10 else f"{value:{sign}.3f}"
