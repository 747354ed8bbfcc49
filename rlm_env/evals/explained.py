"""The words of statistics in reports, each explained in one line below the tables that use it.

Longer: the section "Intervals and tests" of docs/reports.md. Not covered: the test of `--until` (`report.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rlm_env.evals.summary import Comparison, EvalSummary

FEW_TASKS = 20
"""Below this, intervals of scores other than 0 and 1 miss the true value clearly more often than they say
(tests/evals/test_stats.py counts it)."""
LEAST_TASKS = 6
"""Below this, no two-sided p of a paired test can be under 0.05: the smallest is 2 / 2^tasks."""
PAGE = 'docs/reports.md, "Intervals and tests"'


def score_notes(summary: EvalSummary) -> list[str]:
    """What the rows of the table of scaffolds mean, of those that are there."""
    scored = [group.score.tasks for group in (*summary.scaffolds, *summary.lengths) if group.score is not None]
    if not scored:
        return []
    lines = [f"[ ]: 95 % interval of the mean over tasks. On intervals and tests: {PAGE}."]
    if any(group.pass_at_k for group in summary.scaffolds):
        lines.append(
            "pass@k: the chance that at least one of k answers to a task is right. Majority vote: the score of each "
            "task's most frequent answer."
        )
    if summary.stopping is None:
        lines += comparison_notes(summary.comparisons)
        lines += few_tasks_notes(min(scored), summary.comparisons)
    return lines


def comparison_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """What p, its correction and the number of tasks needed mean, of comparisons of a fixed number of tasks."""
    if not comparisons:
        return []
    exact = [one.mcnemar is not None for one in comparisons]
    if all(exact):
        test = "McNemar's exact test, as every score is 0 or 1"
    elif any(exact):
        test = "McNemar's exact test where every score is 0 or 1, else a sign-flip test"
    else:
        test = "a sign-flip test, as not every score is 0 or 1"
    lines = [
        f"p, two-sided, by {test}: how often a difference at least as large would come about if neither were better."
    ]
    if any(exact):
        lines.append("Right alone, wrong alone: tasks that only one of the two got right, and only the other.")
    if len(comparisons) > 1:
        lines.append(
            f"Holm: of {len(comparisons)} comparisons one may look good by luck; corrected, a p of at most 0.05"
            " anywhere among them comes about by luck in at most 5 % of reports."
        )
    if any(one.tasks_needed for one in comparisons):
        lines.append(
            "Tasks needed (power 0.8): with so many, a true difference of the size seen here gets a p below 0.05 in 4 "
            "evals of 5. An order of magnitude."
        )
    return lines


def few_tasks_notes(tasks: int, comparisons: Sequence[Comparison]) -> list[str]:
    """A caution where `tasks`, the fewest behind an interval, are few; `comparisons`: those with a p beside it."""
    if tasks >= FEW_TASKS:
        return []
    said = []
    if not comparisons or any(one.mcnemar is None for one in comparisons):
        said.append(
            "where scores are not just 0 and 1, intervals are too short and miss the true value more often than in 5 % "
            "of cases (of 4 tasks in 15 to 25 %)."
        )
    if comparisons:
        said.append("p is exact for any number of tasks: where an interval seems to disagree with it, go by p.")
        if min(one.difference.tasks for one in comparisons) < LEAST_TASKS:
            said.append(f"With fewer than {LEAST_TASKS} tasks no difference has a p below 0.05.")
    return [f"Few tasks (down to {tasks}): {' '.join(said)}"]
