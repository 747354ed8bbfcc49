"""The metrics of a run: always in metrics.jsonl and on the console, and in trackers (`tracking.py`).

The numbers themselves come from `rl/batch_metrics.py`, `learner/learner.py` and `rl/held_out.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from rlm_env.lines import parse_record
from rlm_env.runs.console import say
from rlm_env.runs.jsonl import JsonLog, read_jsonl, write_jsonl
from rlm_env.train.report.tracking import Row, TensorboardConfig, WandbConfig, start_trackers

METRICS = "metrics.jsonl"
COLUMNS = (
    ("reward", "reward/mean", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("kl", "mismatch_kl", ".1e"),
    ("clipped", "clipped", ".2%"),
    ("grad", "grad_norm", ".2f"),
    ("off-policy", "off_policy_steps/mean", ".1f"),
    ("zero-adv.", "groups/zero_advantage", ".0%"),
    ("sub-calls", "sub_calls/mean", ".1f"),
    ("sub tokens", "tokens/sub_share", ".0%"),
    ("wait s", "seconds/wait", ".1f"),
    ("train s", "seconds/train", ".1f"),
    ("sync s", "seconds/sync", ".1f"),
    ("tok/s", "tokens_per_second", ",.0f"),
)
"""The console's table: heading, metric, format."""
HEADING_EVERY = 20
"""Rows of the console's table between two headings."""


class MetricsLog:
    """The metrics of the run in `folder`, open for writing; a context manager."""

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        trained: int = 0,
        wandb: WandbConfig | None = None,
        tensorboard: TensorboardConfig | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`trained`: updates that the resumed weights have seen. Lines of later updates are removed, since these will
        be done again, on the same rollouts; evaluations stay. What a tracker has got already it does not get again, and
        a tracker that is new gets all of it. `config`: the run's config, for trackers.

        Raises ConfigError where a tracker is configured and not installed, where a line is damaged, and where another
        process is writing.
        """
        self.path = folder / METRICS
        self._console = console
        self._printed = 0
        lines = read_metrics(self.path)
        kept = [line for line in lines if line["step"] <= trained or _is_evaluation(line)]
        self._steps = {_place(line) for line in kept}
        self._tracked = {_place(line) for line in lines}
        self._shown = {line["step"] for line in lines if not _is_evaluation(line)}
        """Steps whose rollouts an earlier process has shown."""
        write_jsonl(self.path, kept)
        self._log = JsonLog(self.path)
        self._trackers = start_trackers(folder, wandb, tensorboard, config or {})
        for tracker in self._trackers:
            for line in lines if tracker.fresh else ():
                tracker.log(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        for tracker in self._trackers:
            tracker.close()

    def evaluated(self, step: int) -> bool:
        """True where the file has the held-out evaluation after `step` updates."""
        return (step, True) in self._steps

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line. Numbers that are not finite are left out, since JSON has none. Raises RunStopped where the
        disk refuses."""
        line = {"step": step, **{key: value for key, value in values.items() if math.isfinite(value)}}
        self._steps.add(_place(line))
        self._log.append(line)
        if _place(line) not in self._tracked:
            self._tracked.add(_place(line))
            for tracker in self._trackers:
                tracker.log(line)

    def show_rollouts(self, step: int, rows: Callable[[int], Sequence[Row]]) -> None:
        """Gives rollouts of a step to the trackers that want them, and do not have them from before a crash. `rows`:
        returns at most so many. To be called after `write`."""
        for tracker in self._trackers:
            if step in self._shown and not tracker.fresh:
                continue
            config = tracker.config
            due = config.rollouts and (step == 1 or step % config.rollouts_every == 0)
            if due and (found := rows(config.rollouts)):
                tracker.show(step, found)

    def show_step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Prints one row of the console's table."""
        if self._printed % HEADING_EVERY == 0:
            heads = "".join(f"{head:>{_width(head)}}" for head, _, _ in COLUMNS)
            say(self._console, f"{'step':>9}{heads}", "bold")
        cells = "".join(
            f"{format(values[key], form) if key in values else '-':>{_width(head)}}" for head, key, form in COLUMNS
        )
        say(self._console, f"{f'{step}/{steps}':>9}{cells}")
        self._printed += 1

    def show_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Prints one line per environment."""
        for key, mean in values.items():
            if key.startswith("eval/") and key.endswith("/score"):
                name = key.removesuffix("/score")
                interval = f"[{values[f'{name}/low']:.3f}, {values[f'{name}/high']:.3f}]"
                text = f"held out after {step} steps: {name.removeprefix('eval/')} {mean:.3f} {interval}"
                first, last = (values.get(f"{name}/policy_version/{end}", step) for end in ("min", "max"))
                if last > first:
                    text += f", on the weights of steps {first:.0f} to {last:.0f}"
                say(self._console, text, "cyan")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; an empty list where there is no file. Raises ConfigError where one is damaged."""
    return list(read_jsonl(path, _read_line))


def _read_line(line: str) -> dict[str, Any]:
    values = parse_record(line)
    if not isinstance(values.get("step"), int):
        raise ValueError("it has no step")
    numbers = {name for name, value in values.items() if isinstance(value, int | float) and abs(value) < math.inf}
    if wrong := values.keys() - numbers:
        raise ValueError(f"{', '.join(sorted(wrong))}: not a number")
    return values


def _is_evaluation(line: Mapping[str, Any]) -> bool:
    return any(key.startswith("eval/") for key in line)


def _place(line: Mapping[str, Any]) -> tuple[int, bool]:
    return line["step"], _is_evaluation(line)


def _width(head: str) -> int:
    return max(len(head), 7) + 2
