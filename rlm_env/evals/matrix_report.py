"""The one table of several environments: a few rows for each, a column for each scaffold.

Covered: layout and wording. Not covered: everything else about each environment (`report.py`, from its own folder).
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.report import NONE
from rlm_env.evals.stats import Estimate
from rlm_env.evals.summary import Comparison, Group, Summary
from rlm_env.runs.tables import Cells, markdown_tables, print_tables


def matrix_table(summaries: Mapping[str, Summary], title: str) -> Cells:
    """Scores, paired differences, outcomes and what they took, environment by environment; then the scaffolds' means."""
    scaffolds = list(dict.fromkeys(group.scaffold for summary in summaries.values() for group in summary.scaffolds))
    table = Cells(title, ["environment", *scaffolds, "best baseline"], wrap=True)

    def add(name: str, values: list[str], baseline: str = "") -> None:
        if any(value not in (NONE, "") for value in values):
            table.rows.append([name, *values, baseline])

    for label, summary in summaries.items():
        groups = {group.scaffold: group for group in summary.scaffolds}
        compared = {comparison.scaffold: comparison for comparison in summary.comparisons}
        row = [groups.get(scaffold) for scaffold in scaffolds]
        add(label, [_score(g) for g in row], _best_floor(summary))
        if compared:
            baseline = summary.comparisons[0].baseline
            add(f"  minus {baseline} (p or n)", [_difference(compared.get(scaffold)) for scaffold in scaffolds])
        add("  not answered", [_outcomes(g) for g in row])
        add("  root + sub tokens", [_tokens(g) for g in row])
        add("  seconds", [f"{g.seconds['total']:.1f}" if g and g.ran else NONE for g in row])
    means = [_mean([_of(summary, scaffold) for summary in summaries.values()]) for scaffold in scaffolds]
    table.rows.append(["mean of environments", *means, ""])
    return table


def matrix_notes(summaries: Mapping[str, Summary]) -> list[str]:
    """What a reader of the table must know, one sentence each."""
    lines = [
        "Score: mean and half the width of its 95 % interval. Differences are paired by task, with McNemar's p where "
        "every score is 0 or 1, else with the number of tasks that would tell them apart (power 0.8).",
        "Tokens and seconds are means per rollout that ran. Best baseline: what an answer without understanding scores.",
    ]
    equal: dict[str, list[str]] = {}
    for label, summary in summaries.items():
        for group in summary.scaffolds:
            if count := group.outcomes[Outcome.ERROR]:
                lines.append(
                    f"{label}, {group.scaffold}: {count} rollouts failed and are in no mean. --resume repeats them."
                )
        for difference in summary.differences:
            equal.setdefault(difference, []).append(label)
    for difference, labels in equal.items():
        where = "" if len(labels) == len(summaries) else f" ({', '.join(labels)})"
        lines.append(f"Not on equal terms{where}: {difference}")
    return lines


def print_matrix(console: Console, summaries: Mapping[str, Summary], title: str) -> None:
    """Prints the table with rich."""
    print_tables(console, [matrix_table(summaries, title)], matrix_notes(summaries))


def markdown_matrix(summaries: Mapping[str, Summary], title: str) -> str:
    """The same table as GitHub Markdown."""
    return markdown_tables([matrix_table(summaries, title)], matrix_notes(summaries))


def _of(summary: Summary, scaffold: str) -> Estimate | None:
    return next((group.score for group in summary.scaffolds if group.scaffold == scaffold), None)


def _mean(scores: list[Estimate | None]) -> str:
    """Only where every environment has a score: means over different environments cannot be compared."""
    if not scores or None in scores:
        return NONE
    return f"{sum(score.mean for score in scores) / len(scores):.2f}"


def _score(group: Group | None) -> str:
    if group is None or group.score is None:
        return NONE
    return f"{group.score.mean:.2f} ±{(group.score.high - group.score.low) / 2:.2f}"


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return NONE
    told = f"{comparison.difference.mean:+.2f}"
    if comparison.mcnemar is not None:
        return f"{told} (p {comparison.mcnemar.p:.2f})"
    return f"{told} (n {comparison.tasks_needed:,})" if comparison.tasks_needed else told


def _outcomes(group: Group | None) -> str:
    if group is None:
        return NONE
    told = [f"{count} {name}" for name, count in group.outcomes.items() if count and name != Outcome.ANSWERED]
    return ", ".join(told) or NONE


def _tokens(group: Group | None) -> str:
    if group is None or not group.ran:
        return NONE
    root = group.root_prompt_tokens + group.root_completion_tokens
    sub = group.sub_prompt_tokens + group.sub_completion_tokens
    return f"{root:,.0f} + {sub:,.0f}" if sub else f"{root:,.0f}"


def _best_floor(summary: Summary) -> str:
    best = max((f for f in summary.baselines if f.score), key=lambda baseline: baseline.score.mean, default=None)
    return f"{best.score.mean:.2f} {best.name}" if best else NONE
