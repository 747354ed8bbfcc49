"""The charts of a report as numbers: score, tokens, seconds, money by context length; how many sub-calls rollouts made;
curves of training runs, and the programs that their policies wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlm_env.evals.detail_report import tokens_of
from rlm_env.evals.summary import EvalSummary, ScaffoldSummary
from rlm_env.reports.data import TrainingReport

MANY_POINTS = 600
"""Points of a line from which some are left out: more than a chart has pixels."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value, with its 95 % interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over a common axis."""

    title: str
    x: str
    y: str
    lines: list[Line] = field(default_factory=list)
    log_x: bool = False
    unit: bool = False
    """Values lie in [0, 1]."""


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars beside each other in each of some places: a histogram."""

    title: str
    x: str
    y: str
    places: list[str]
    """Beside the axis stands the first word of each."""
    bars: dict[str, list[float]]
    """Name -> its value at each place."""


def sub_call_charts(summary: EvalSummary) -> list[BarChart]:
    """One chart: the share of rollouts by their number of sub-calls; none where no rollout made any."""
    groups = [group for group in summary.scaffolds if group.sub_call_bins]
    if not groups:
        return []
    longest = max((group.sub_call_bins for group in groups), key=len)
    places = [f"{one.low:,}" if one.low == one.high else f"{one.low:,} to {one.high:,}" for one in longest]
    bars = {}
    for group in groups:
        counts = [one.rollouts for one in group.sub_call_bins]
        bars[group.scaffold] = [count / sum(counts) for count in counts] + [0.0] * (len(places) - len(counts))
    return [
        BarChart("Sub-calls of a rollout", "sub-calls: 2 to 3, 4 to 7, 8 to 15, ...", "share of rollouts", places, bars)
    ]


def length_charts(summary: EvalSummary) -> list[Chart]:
    """Score, tokens, seconds and money of a rollout by context length; empty below two lengths. A number that is not
    known has no point."""
    if len({group.length for group in summary.lengths}) < 2:
        return []
    x = "context, tokens"
    charts = [
        Chart("Score by context length", x, "score", _by_scaffold(summary, _score), log_x=True, unit=True),
        Chart("Tokens of a rollout by context length", x, "tokens", _by_scaffold(summary, _tokens), log_x=True),
        Chart("Seconds of a rollout by context length", x, "seconds", _by_scaffold(summary, _seconds), log_x=True),
        Chart("Cost of a rollout by context length", x, "US$", _by_scaffold(summary, _cost), log_x=True),
    ]
    return [chart for chart in charts if chart.lines]


def training_charts(runs: Sequence[TrainingReport]) -> list[Chart]:
    """One chart per metric, a line per run; and one of the programs of each run."""
    names = dict.fromkeys(curve.name for run in runs for curve in run.curves)
    charts = []
    for name in names:
        lines = [
            Line(run.run.name, _points(curve.points, curve.bounds))
            for run in runs
            for curve in run.curves
            if curve.name == name
        ]
        unit = name.startswith("held out: ") or name == "reward/mean"
        unit = unit and all(0.0 <= point.y <= 1.0 for line in lines for point in line.points)
        charts.append(Chart(name, "optimizer steps", name.rpartition(": ")[2], lines, unit=unit))
    for run in runs:
        if run.programs:
            lines = [Line(curve.name, _points(curve.points, None)) for curve in run.programs]
            title = f"Programs of {run.run.name}" if len(runs) > 1 else "Programs that the policy wrote"
            charts.append(Chart(title, "optimizer steps", "share of rollouts", lines, unit=True))
    return charts


def _points(points: Sequence[tuple[float, float]], bounds: Sequence[tuple[float, float]] | None) -> list[Point]:
    step = max(1, -(-len(points) // MANY_POINTS))
    chosen = sorted({*range(0, len(points), step), len(points) - 1})
    return [Point(*points[at], *(bounds[at] if bounds else ())) for at in chosen]


def _by_scaffold(summary: EvalSummary, point: Callable[[ScaffoldSummary, float], Point | None]) -> list[Line]:
    """A line per scaffold that has a value anywhere."""
    lines = []
    for scaffold in dict.fromkeys(group.scaffold for group in summary.lengths):
        groups = [group for group in summary.lengths if group.scaffold == scaffold]
        points = [made for group in groups if group.length and (made := point(group, group.length))]
        if points:
            lines.append(Line(scaffold, points))
    return lines


def _score(group: ScaffoldSummary, x: float) -> Point | None:
    score = group.score
    return Point(x, score.mean, score.low, score.high) if score else None


def _tokens(group: ScaffoldSummary, x: float) -> Point | None:
    return Point(x, sum(tokens_of(group))) if group.root_prompt_tokens else None


def _seconds(group: ScaffoldSummary, x: float) -> Point | None:
    return Point(x, group.seconds["total"]) if group.ran else None


def _cost(group: ScaffoldSummary, x: float) -> Point | None:
    return None if group.cost_each is None or not group.ran else Point(x, group.cost_each)
