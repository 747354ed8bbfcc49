"""What programs a policy wrote while it was trained: the share of rollouts with each, by the steps of its weights."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import count
from pathlib import Path
from statistics import fmean

from rlm_env.evals.outline import outline
from rlm_env.evals.programs import Program, program_of
from rlm_env.lines import read_lines
from rlm_env.reports.data import Curve
from rlm_env.rollout import RecordError
from rlm_env.runs.folder import ROLLOUTS

READ = 20_000
"""Rollouts whose code is read; of a run with more, evenly spaced ones."""
POINTS = 60
"""Places on the axis of steps; of a run with more steps, each place has several."""


def programs_by_step(folder: Path) -> list[Curve]:
    """A curve for each program of the training rollouts: how large a share of them it was, by optimizer steps that the
    weights had seen when the rollout began. Empty where no rollout has a REPL. Raises RecordError."""
    path = folder / ROLLOUTS
    found: dict[int, Counter[Program]] = defaultdict(Counter)
    if path.exists():
        with open(path, "rb") as lines:
            every = -(-sum(1 for _ in lines) // READ)
        numbers = count()

        def read(line: str | bytes) -> tuple[int, Program] | None:
            return _version_and_program(line) if next(numbers) % every == 0 else None

        for one in read_lines(path, read, RecordError):
            if one is not None:
                found[one[0]][one[1]] += 1
    width = max(1, -(-(max(found, default=0) + 1) // POINTS))
    places: dict[int, list[int]] = defaultdict(list)
    for version in sorted(found):
        places[version // width].append(version)
    together = {
        fmean(versions): sum((found[version] for version in versions), Counter()) for versions in places.values()
    }
    return [
        Curve(program.value, [(step, counts[program] / counts.total()) for step, counts in together.items()], None)
        for program in Program
        if any(counts[program] for counts in together.values())
    ]


def _version_and_program(line: str | bytes) -> tuple[int, Program] | None:
    rollout = outline(line)
    written = program_of(rollout)
    return None if rollout.group is None or written is None else (rollout.group.policy_version, written.program)
