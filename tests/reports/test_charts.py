"""Charts: which lines and points they have, and that any of them is an SVG with text as text."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.evals.rollout_stats import stats_of
from rlm_env.evals.summary import summarize
from rlm_env.messages import Usage
from rlm_env.reports.charts import (
    MANY_POINTS,
    BarChart,
    Chart,
    Line,
    Point,
    length_charts,
    sub_call_charts,
    training_charts,
)
from rlm_env.reports.data import Curve, RunFacts, TrainingReport
from rlm_env.reports.svg import HEIGHT, WIDTH, chart_svg, figure_svg
from rlm_env.rollout import Rollout, Score, StopReason, SubCall, Timing, Turn
from rlm_env.runs.prices import Price
from tests.reports.conftest import HOSTILE


def rollout(scaffold: str, length: int | None, *, overflow: bool = False) -> Rollout:
    usage = Usage() if overflow else Usage(length or 9, 10, 0, 1)
    return Rollout(
        task_id=f"t{length}",
        scaffold=scaffold,
        answer="" if overflow else "x",
        stop_reason=StopReason.CONTEXT_OVERFLOW if overflow else StopReason.READY,
        score=Score(0.0 if overflow else 1.0),
        turns=[] if overflow else [Turn(usage=usage)],
        root_usage=usage,
        timing=Timing(2.0),
        info={"task": {"length_tokens": length}},
    )


MADE = [rollout("rlm", 500), rollout("rlm", 4000), rollout("standard", 500), rollout("standard", 4000, overflow=True)]


def test_score_tokens_seconds_and_money_stand_against_context_length():
    prices = (Price(prompt=1.0, completion=0.0), Price(prompt=0.0, completion=0.0))
    charts = {one.y: one for one in length_charts(summarize([stats_of(r, prices) for r in MADE], ["standard", "rlm"]))}
    assert list(charts) == ["score", "tokens", "seconds", "US$"]
    standard, rlm = charts["tokens"].lines
    assert [(point.x, point.y) for point in rlm.points] == [(500, 510), (4000, 4010)]
    assert [point.x for point in standard.points] == [500]  # what did not run has cost nothing
    assert [point.y for point in charts["score"].lines[0].points] == [1.0, 0.0]
    assert [point.y for point in charts["US$"].lines[1].points] == pytest.approx([500e-6, 4000e-6])
    assert all(point.low is not None for point in charts["score"].lines[0].points)


def test_what_is_not_known_is_not_drawn():
    stats = [stats_of(one) for one in MADE]
    assert [one.y for one in length_charts(summarize(stats, ["standard", "rlm"]))] == ["score", "tokens", "seconds"]
    assert length_charts(summarize(stats[:1], ["rlm"])) == []
    assert length_charts(summarize([stats_of(rollout("rlm", None))], ["rlm"])) == []


def test_the_curves_of_several_seeds_share_a_chart_and_are_thinned():
    points = [(float(step), step / 2000) for step in range(2000)]
    runs = [
        TrainingReport(RunFacts(name, "", "complete", None, 0, {}, {}), 2000, [Curve("reward/mean", points, None)])
        for name in ("a", "b")
    ]
    (chart,) = training_charts(runs)
    assert [line.name for line in chart.lines] == ["a", "b"]
    assert len(chart.lines[0].points) <= MANY_POINTS + 1
    assert chart.lines[0].points[-1] == Point(*points[-1])
    assert chart.unit


def called(scaffold: str, calls: int, task: int) -> Rollout:
    return replace(
        rollout(scaffold, None),
        task_id=str(task),
        sub_calls=[SubCall(id=i, root_turn=0, batch=0, messages=[]) for i in range(calls)],
    )


def test_sub_calls_stand_as_shares_of_each_scaffold():
    made = [called("rlm", n, task) for task, n in enumerate((0, 1, 5, 6))] + [called("rlm-tips", 2, 0)]
    (chart,) = sub_call_charts(summarize([stats_of(one) for one in made], ["rlm", "rlm-tips"]))
    assert chart.places == ["0", "1", "2 to 3", "4 to 7"]
    assert chart.bars == {"rlm": [0.25, 0.25, 0.0, 0.5], "rlm-tips": [0.0, 0.0, 1.0, 0.0]}
    assert sub_call_charts(summarize([stats_of(called("rlm", 0, 0))], ["rlm"])) == []


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=40).filter(any), st.integers(1, 12))
def test_bars_stand_on_the_axis_within_the_frame(values, several):
    places = [f"{i} to {2 * i} {HOSTILE}" for i in range(len(values))]
    root = parsed(BarChart(HOSTILE, "x", "y", places, {f"{HOSTILE}{i}": values for i in range(several)}))
    bars = list(root.iter("rect"))
    assert len(bars) == len(values) * several
    floors = {round(float(bar.get("y")) + float(bar.get("height")), 1) for bar in bars}
    assert max(floors) - min(floors) <= 0.1
    assert root.find(".//svg/text[@y='251']").text == "0"  # "0 to 0 ..." has no room
    for bar in bars:
        left, top = float(bar.get("x")), float(bar.get("y"))
        assert 0 <= left <= left + float(bar.get("width")) <= WIDTH + 0.1
        assert 0 <= top <= HEIGHT


def parsed(chart: Chart | BarChart) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{figure_svg(chart)}</div>")


def test_names_are_text():
    root = parsed(Chart(HOSTILE, HOSTILE, HOSTILE, [Line(HOSTILE, [Point(1, 2)])]))
    assert {element.tag for element in root.iter()} <= {
        "div",
        "svg",
        "line",
        "text",
        "polyline",
        "circle",
        "title",
        "p",
        "span",
    }
    assert sum(HOSTILE in (element.text or "") + (element.tail or "") for element in root.iter()) >= 3


VALUES = st.floats(-1e9, 1e9) | st.floats(0, 1)
LENGTHS = st.integers(1, 10**9).map(float)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(LENGTHS, VALUES, st.booleans()), min_size=1, max_size=60),
    st.booleans(),
)
def test_any_chart_stays_within_its_frame(values, log_x):
    points = [Point(x, y, y - 1, y + 1) if bounded else Point(x, y) for x, y, bounded in values]
    root = parsed(Chart("t", "x", "y", [Line("a", points), Line("b", points[:1])], log_x=log_x))
    for element in root.iter():
        for name, most in (("x1", WIDTH), ("x2", WIDTH), ("cx", WIDTH), ("y1", HEIGHT), ("y2", HEIGHT), ("cy", HEIGHT)):
            place = float(element.get(name, 0))
            assert math.isfinite(place)
            assert -0.1 <= place <= most + 0.1
    ticks = [element.text for element in root.iter("text")]
    assert 4 <= len(ticks) <= 40


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1000, 6000, "1k 2k 5k 10k"), (1024, 4_000_000, "1k 10k 100k 1M 10M")]
)
def test_lengths_have_round_ticks(low, high, expected):
    svg = chart_svg(Chart("t", "x", "y", [Line("a", [Point(low, 0.5), Point(high, 0.5)])], log_x=True, unit=True))
    assert " ".join(re.findall(r'text-anchor="middle">(\d+[kM]?)<', svg)) == expected
