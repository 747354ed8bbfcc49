"""A chart as SVG inside of a page: text stays text, colors come from the page's style sheet, light or dark.

No script and no style attribute, so that it may stand in a page that forbids both. A value shows its numbers where the
pointer rests on it, and stands in a table of the report as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rlm_env.readable import escaped
from rlm_env.reports.charts import BarChart, Chart, Line, Point

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44
COLORS = 8
"""Colors that the style sheet has, as classes `c0` and so on; lines beyond are dashed in the same colors."""
TICKS = 5
APART = 4.0
"""Between the intervals of several lines at the same place."""
PLACES = 9
"""Names below bars that have room; of more, evenly spaced ones."""
SMALLEST = 1e-12
"""What is smaller is drawn as nothing."""
Scale = Callable[[float], float]


def figure_svg(chart: Chart | BarChart) -> str:
    """A chart of either kind."""
    return bars_svg(chart) if isinstance(chart, BarChart) else chart_svg(chart)


def bars_svg(chart: BarChart) -> str:
    """Bars from zero, those of a place beside each other, as an `<svg>` element with their names below it."""
    most = max(max(values) for values in chart.bars.values())
    ticks = _ticks(0.0, most, log=False)
    y = _scale(0.0, max(most, *ticks), HEIGHT - BOTTOM, TOP, log=False)
    room = (WIDTH - RIGHT - LEFT) / len(chart.places)
    width = 0.8 * room / len(chart.bars)
    parts = _frame(chart, ticks, y)
    every = -(-len(chart.places) // PLACES)
    for number, place in enumerate(chart.places):
        middle = LEFT + (number + 0.5) * room
        if number % every == 0:
            shown = escaped(place.partition(" ")[0])
            parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{shown}</text>')
        for index, (name, values) in enumerate(chart.bars.items()):
            left, top = middle + (index - len(chart.bars) / 2) * width, y(values[number])
            told = escaped(f"{name}: {values[number]:.3f} at {place}")
            parts.append(
                f'<rect class="bar c{index % COLORS}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
                f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{told}</title></rect>'
            )
    return _with_legend(chart, parts, list(chart.bars))


def chart_svg(chart: Chart) -> str:
    """The chart as an `<svg>` element, with its lines named below it."""
    points = [point for line in chart.lines for point in line.points]
    xs = [point.x for point in points]
    ys = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    log_y = not chart.unit and min(ys) > SMALLEST and max(ys) > 30 * min(ys)
    x_ticks = _ticks(min(xs), max(xs), log=chart.log_x)
    y_ticks = (
        [0, 0.25, 0.5, 0.75, 1.0] if chart.unit else _ticks(min(ys) if log_y else min(0.0, *ys), max(ys), log=log_y)
    )
    x = _scale(min(*xs, *x_ticks), max(*xs, *x_ticks), LEFT, WIDTH - RIGHT, log=chart.log_x)
    y = _scale(min(*ys, *y_ticks), max(*ys, *y_ticks), HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [*_axes(chart, x_ticks, y_ticks, x, y)]
    apart = APART if any(point.low is not None for point in points) else 0.0
    for index, line in enumerate(chart.lines):
        aside = apart * (index - (len(chart.lines) - 1) / 2)
        parts += _line(line, index, lambda value, aside=aside: x(value) + aside, y)
    return _with_legend(chart, parts, [line.name for line in chart.lines])


def _with_legend(chart: Chart | BarChart, parts: Sequence[str], names: Sequence[str]) -> str:
    label = f"{chart.title}: {chart.y} by {chart.x}, of {', '.join(names)}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(label)}">{"".join(parts)}</svg>\n'
        f'<p class="legend">{"".join(_legend(name, index) for index, name in enumerate(names))}</p>'
    )


def _scale(low: float, high: float, start: float, end: float, *, log: bool) -> Scale:
    """Values to places; a single value is in the middle."""
    to = math.log if log else float
    first, span = to(low), to(high) - to(low)
    if span <= 0:
        return lambda value: (start + end) / 2
    return lambda value: start + (to(value) - first) / span * (end - start)


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round values that span the range, about `TICKS` of them."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        first = max(place for place, step in enumerate(steps) if step <= low * (1 + 1e-9))
        last = min(place for place, step in enumerate(steps) if step >= high * (1 - 1e-9))
        if last - first < TICKS + 2:
            return steps[first : last + 1]
        return [10.0**power for power in powers[:: math.ceil(len(powers) / (TICKS + 2))]]
    span = next((size for size in (high - low, abs(high)) if size > SMALLEST), 1.0)
    step = 10.0 ** math.floor(math.log10(span / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= TICKS)
    first = math.floor(low / step + 1e-9)
    return [round(number * step, 12) for number in range(first, math.ceil(high / step - 1e-9) + 1)]


def _axes(chart: Chart, x_ticks: Sequence[float], y_ticks: Sequence[float], x: Scale, y: Scale) -> list[str]:
    parts = _frame(chart, y_ticks, y)
    for value in x_ticks:
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_number(value)}</text>'
        )
    return parts


def _frame(chart: Chart | BarChart, y_ticks: Sequence[float], y: Scale) -> list[str]:
    """The lines across with their values, and what the axes are."""
    parts = []
    for value in y_ticks:
        at = f"{y(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{_number(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escaped(chart.x)}</text>')
    across = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 12 {across})"'
    parts.append(f'<text class="axis" x="12" y="{across}" text-anchor="middle" {turned}>{escaped(chart.y)}</text>')
    return parts


def _line(line: Line, index: int, x: Scale, y: Scale) -> list[str]:
    places = " ".join(f"{x(point.x):.1f},{y(point.y):.1f}" for point in line.points)
    dashed = ' stroke-dasharray="5 3"' if index // COLORS % 2 else ""
    parts = [f'<polyline class="line c{index % COLORS}" points="{places}"{dashed}/>']
    few = len(line.points) <= 40
    for point in line.points:
        at = f"{x(point.x):.1f}"
        if point.low is not None and point.high is not None:
            ends = f'y1="{y(point.low):.1f}" y2="{y(point.high):.1f}"'
            parts.append(f'<line class="line c{index % COLORS}" x1="{at}" x2="{at}" {ends}/>')
        if few:
            title = f"<title>{escaped(_told(line, point))}</title>"
            parts.append(
                f'<circle class="dot c{index % COLORS}" cx="{at}" cy="{y(point.y):.1f}" r="3.5">{title}</circle>'
            )
    return parts


def _told(line: Line, point: Point) -> str:
    interval = f" [{point.low:.3f}, {point.high:.3f}]" if point.low is not None and point.high is not None else ""
    return f"{line.name}: {point.y:.4g}{interval} at {point.x:,.0f}"


def _legend(name: str, index: int) -> str:
    dashed = ' stroke-dasharray="5 3"' if index // COLORS % 2 else ""
    mark = f'<line class="line c{index % COLORS}" x1="0" x2="18" y1="5" y2="5"{dashed}/>'
    return f'<span><svg class="mark" viewBox="0 0 18 10" aria-hidden="true">{mark}</svg>{escaped(name)}</span> '


def _number(value: float) -> str:
    """A value beside an axis, short."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"
