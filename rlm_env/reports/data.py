"""The numbers of a report, which are its JSON form: what each run was made of, and what came out of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from rlm_env.evals.summary import Comparison, EvalSummary

SCHEMA = 1
"""Changes whenever a field is removed or means something else."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run was made of."""

    name: str
    """The name of its folder; of one environment among several, with the environment's label behind it."""
    title: str
    status: str
    """`complete`, `running`, `stopped`, or why it ended early."""
    started: str | None
    """UTC, ISO 8601."""
    seed: int | None
    config: dict[str, Any]
    """What was asked for: its config.toml without the output folder."""
    record: dict[str, Any]
    """What it was made of: versions, engines, hashes of tasks, models, prompts and the environment's package."""


@dataclass(frozen=True, slots=True)
class EvalReport:
    """An eval on one environment."""

    run: RunFacts
    environment: str
    """Its label in the config."""
    matrix: str | None
    """The name of the eval on several environments that it is a part of."""
    summary: EvalSummary


@dataclass(frozen=True, slots=True)
class RunComparison:
    """The same scaffold in two runs on the same tasks: `comparison.scaffold` and `comparison.baseline` are the names of
    the runs. The comparisons of a report are corrected together."""

    scaffold: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Curve:
    """A number of a training run by its steps."""

    name: str
    """Of a metric as in metrics.jsonl; of a held-out score `held out: ` and the environment; or a program."""
    points: list[tuple[float, float]]
    """(optimizer steps, value)"""
    bounds: list[tuple[float, float]] | None
    """The 95 % interval at each point, for held-out scores."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A training run."""

    run: RunFacts
    steps: int
    """Optimizer steps so far."""
    curves: list[Curve]
    programs: list[Curve] = field(default_factory=list)
    """The share of its rollouts with each program, by optimizer steps that the weights had seen when they began."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """All numbers of a report."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    schema: int
    version: str
    """Of rlm-env, which made the report."""
    evals: list[EvalReport] = field(default_factory=list)
    matrices: list[RunFacts] = field(default_factory=list)
    """Evals on several environments; what came out is in `evals`, under their names."""
    comparisons: list[RunComparison] = field(default_factory=list)
    trainings: list[TrainingReport] = field(default_factory=list)

    def to_json(self) -> str:
        """The report as JSON, with a line break at its end."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a report, with the fields' descriptions (docs/report.schema.json)."""
    return TypeAdapter(ReportData).json_schema()
