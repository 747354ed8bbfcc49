"""The model card's tables, from the folder of an eval: scores by environment, size and scaffold beside the best answer
without the context, and the programs that were written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlm_env.environment import Environment
from rlm_env.evals.baselines import baseline_policies
from rlm_env.evals.matrix import MatrixResult, stored_result
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.outline import outline
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.evals.setup import load_tasks
from rlm_env.evals.stats import Estimate, clustered_mean
from rlm_env.evals.stored import StoredRun, open_stored
from rlm_env.evals.summary import SAME_LENGTH, scores_by_task
from rlm_env.lines import read_lines
from rlm_env.registry import find_environment
from rlm_env.rollout import RecordError, Rollout
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import ROLLOUTS
from rlm_env.runs.tables import NONE, Cells
from rlm_env.scoring import score
from rlm_env.task import Task
from tiny_rlm.strategies import most_frequent, strategy_line

SCORES_NOTE = (
    "Mean score and its 95 % interval, bold where it lies above the best answer without the context (of the baselines "
    "that `rlm-env eval` measures, each given the question alone), and how many prompts were longer than the window."
)
PROGRAMS_NOTE = "A program is what the code of a rollout does; a line is that with which its first reply names it."


BLIND_TASKS = 200
ALL = "all"


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """Tasks of one size."""

    label: str
    ids: frozenset[str]


def score_table(folder: Path, blind_tasks: int = BLIND_TASKS) -> Cells:
    """A row for each environment and for each size of its tasks. `blind_tasks`: how many tasks of the split the answers
    without the context are scored on; of few, the best of ten policies looks better than it is.

    Raises ConfigError if the folder holds no eval, or one whose tasks are others by now."""
    runs = runs_of(folder)
    scaffolds = list(dict.fromkeys(name for run in runs.values() for name in run.config.scaffolds))
    table = Cells("Scores", ["environment", "context", *scaffolds, "best without it"], keys=2)
    for label, run in runs.items():
        stats = last_stats(run)
        environment = find_environment(run.config.environment, seed=run.config.seed, **run.config.options)
        tasks = stored_tasks(run, environment, stats, blind_tasks)
        blind = scores_without_context(environment, tasks)
        for group in size_groups(tasks):
            here = [one for one in stats if one.task_id in group.ids]
            name, floor = best_policy(blind, group.ids)
            cells = [score_cell([one for one in here if one.scaffold == each], floor) for each in scaffolds]
            first = label if group.label == ALL else ""
            table.rows.append([first, group.label, *cells, f"{floor:.2f} {name}"])
    return table


def runs_of(folder: Path) -> dict[str, StoredRun]:
    """The runs of an eval on one environment or on several, by label, as far as they have begun."""
    result = stored_result(folder)
    if isinstance(result, MatrixResult):
        return {label: open_stored(folder / label) for label in result.summaries}
    return {result.label: open_stored(folder)}


def last_stats(run: StoredRun) -> list[RolloutStats]:
    """The numbers of a run's rollouts; of one that was stored twice, the last line counts."""
    return list({one.key: one for one in run.stats()}.values())


def stored_tasks(
    run: StoredRun, environment: Environment, stats: Iterable[RolloutStats], at_least: int = 0
) -> list[Task]:
    """The tasks of a run, made again, and those that follow up to `at_least`. Raises ConfigError if its rollouts are
    about others."""
    n = run.config.n
    tasks = load_tasks(run.config.model_copy(update={"n": n and max(n, at_least)}), environment)
    if gone := {one.task_id for one in stats} - {task.id for task in tasks}:
        raise ConfigError(f"{run.path} has rollouts of tasks that are not made any more, such as {min(gone)}")
    return tasks


def size_groups(tasks: Sequence[Task]) -> list[SizeGroup]:
    """All tasks, and then those of each length of the context; where there is no context, those of each family."""
    sizes: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: task.info.get("length_tokens") or 0):
        shortest = next(reversed(sizes.values()))[0].info.get("length_tokens") if sizes else None
        length = task.info.get("length_tokens")
        if length is None:
            label = str(task.info.get("family", ""))
        elif shortest is not None and length <= SAME_LENGTH * shortest:
            label = next(reversed(sizes))
        else:
            label = f"from {length:,} tokens"
        sizes.setdefault(label, []).append(task)
    whole = SizeGroup(ALL, frozenset(task.id for task in tasks))
    groups = [SizeGroup(label, frozenset(task.id for task in here)) for label, here in sizes.items()]
    return [whole, *(groups if len(groups) > 1 else ())]


def scores_without_context(environment: Environment, tasks: Sequence[Task]) -> dict[str, dict[str, float]]:
    """Policy -> task id -> score, of the policies that an eval measures, each given its tasks without their contexts.
    One that fails without a context has no answer."""
    policies = baseline_policies(environment, tasks)
    return {
        name: {task.id: score(environment, task, _blind_rollout(policy, task)).value for task in tasks}
        for name, policy in policies.items()
    }


def _blind_rollout(policy: Callable[[Task], str], task: Task) -> Rollout:
    nothing = {} if isinstance(task.context, dict) else [] if isinstance(task.context, list) else ""
    try:
        answer = policy(replace(task, context=nothing))
    except Exception:  # whatever it lacks
        answer = ""
    return Rollout.from_answer(task, answer)


def best_policy(scores: dict[str, dict[str, float]], ids: frozenset[str]) -> tuple[str, float]:
    """The policy with the highest mean over these tasks, and that mean."""
    means = {name: sum(each[id] for id in ids) / len(ids) for name, each in scores.items()}
    best = max(means, key=lambda name: means[name])
    return (best, means[best]) if means[best] > 0 else (NONE, 0.0)


def score_cell(stats: Sequence[RolloutStats], floor: float) -> str:
    """Mean and interval of one scaffold's rollouts, and how many prompts overflowed."""
    estimate = clustered_mean(scores_by_task(stats))
    if estimate is None:
        return NONE
    long = sum(one.outcome is Outcome.OVERFLOW for one in stats)
    shown = _estimate(estimate, floor)
    return f"{shown}, {long} of {len(stats)} too long" if long else shown


def _estimate(estimate: Estimate, floor: float) -> str:
    text = f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"**{text}**" if estimate.low > floor else text


def program_table(folder: Path, scaffold: str = "rlm") -> Cells:
    """The kinds of programs in one scaffold: the share of each among an environment's rollouts, and its score."""
    table = Cells(f"Programs in the scaffold {scaffold}", ["environment", "program", "share", "score"], keys=2)
    for label, run in runs_of(folder).items():
        here = [one for one in run.result(last_stats(run)).summary.programs if one.scaffold == scaffold]
        written = sum(one.rollouts for one in here)
        for one in sorted(here, key=lambda one: -one.rollouts):
            scored = NONE if one.score is None else f"{one.score.mean:.2f}"
            table.rows.append([label, one.program, f"{one.rollouts / written:.2f}", scored])
    return table


def line_table(folder: Path, scaffold: str = "rlm", lines: int = 8) -> Cells:
    """The lines with which first replies name their strategies, the most frequent ones of each environment."""
    table = Cells(f"Named strategies in the scaffold {scaffold}", ["environment", "line", "share", "score"], keys=2)
    for label, run in runs_of(folder).items():
        last = {
            (one.task_id, one.info.get("repeat")): one
            for one in read_lines(run.path / ROLLOUTS, outline, RecordError)
            if one.scaffold == scaffold
        }
        here = [one for one in last.values() if one.turns and one.score is not None]
        named = most_frequent([strategy_line(one.turns[0].text) for one in here], lines)
        scores: dict[str, list[float]] = defaultdict(list)
        for line, one in zip(named, here, strict=True):
            scores[line].append(one.score.value if one.score else 0.0)
        for line, each in sorted(scores.items(), key=lambda item: -len(item[1])):
            table.rows.append([label, line, f"{len(each) / len(here):.2f}", f"{sum(each) / len(each):.2f}"])
    return table
