"""The curves of a training run as numbers: of its metrics by step, and of its held-out scores with their intervals.

They are drawn by the viewer and by reports; as a picture in `curve.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlm_env.train.report.report import Line

CURVES = ("reward/mean", "loss", "entropy", "mismatch_kl", "grad_norm", "off_policy_steps/mean", "sub_calls/mean")
"""Metrics that are drawn, besides the held-out scores."""


def curves(steps: Sequence[Line], evaluations: Sequence[Line]) -> list[dict[str, Any]]:
    """Name, points [step, value] and, for held-out scores, bounds [low, high] of each curve that has points."""
    found = [
        {"name": name, "points": [[line["step"], line[name]] for line in steps if name in line], "bounds": None}
        for name in CURVES
    ]
    for name in sorted({key for line in evaluations for key in line if key.endswith("/score")}):
        base, lines = name.removesuffix("/score"), [line for line in evaluations if name in line]
        points = [[line["step"], line[name]] for line in lines]
        bounds = [[line.get(f"{base}/low", line[name]), line.get(f"{base}/high", line[name])] for line in lines]
        found.append({"name": f"held out: {base.removeprefix('eval/')}", "points": points, "bounds": bounds})
    return [curve for curve in found if curve["points"]]
