"""The table of an eval on several environments: a few rows for each, a column for each scaffold.

Not covered: the tables of one environment, which `rlm-env report` prints from its folder (`report.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from rlm_env.evals.explained import PAGE, few_tasks_notes
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.report import stopping_note
from rlm_env.evals.stats import Estimate
from rlm_env.evals.summary import Comparison, EvalSummary, ScaffoldSummary
from rlm_env.runs.tables import NONE, Cells, markdown_tables, print_tables


def matrix_table(summaries: Mapping[str, EvalSummary], title: str) -> Cells:
    """Scores, paired differences, outcomes and costs of each environment; then the scaffolds' means."""
    scaffolds = list(dict.fromkeys(group.scaffold for summary in summaries.values() for group in summary.scaffolds))
    table = Cells(title, ["environment", *scaffolds, "best baseline"], wrap=True)

    def add(name: str, values: list[str], baseline: str = "") -> None:
        if any(value not in (NONE, "") for value in values):
            table.rows.append([name, *values, baseline])

    for label, summary in summaries.items():
        groups = {group.scaffold: group for group in summary.scaffolds}
        compared = {comparison.scaffold: comparison for comparison in summary.comparisons}
        row = [groups.get(scaffold) for scaffold in scaffolds]
        add(label, [_score(g) for g in row], _best_baseline(summary))
        if compared:
            baseline = summary.comparisons[0].baseline
            add(f"  minus {baseline} (p or n)", [_difference(compared.get(scaffold)) for scaffold in scaffolds])
        for name in dict.fromkeys(name for g in row if g for name in g.metrics):
            add(f"  metric {name}", [_metric(g, name) for g in row])
        add("  not answered", [_outcomes(g) for g in row])
        add("  root + sub tokens", [_tokens(g) for g in row])
        add("  seconds", [f"{g.seconds['total']:.1f}" if g and g.ran else NONE for g in row])
    means = [_mean([_of(summary, scaffold) for summary in summaries.values()]) for scaffold in scaffolds]
    table.rows.append(["mean of environments", *means, ""])
    return table


def matrix_notes(summaries: Mapping[str, EvalSummary]) -> list[str]:
    """Remarks below the table, one sentence each."""
    lines = [
        "Score: mean and half the width of its 95 % interval. Differences are paired by task, with McNemar's p where "
        "every score is 0 or 1, corrected for the comparisons of an environment (Holm), else with the number of tasks "
        f"that would tell them apart in 4 evals of 5 (power 0.8). On intervals and tests: {PAGE}.",
        "Metrics are means per scored rollout, tokens and seconds per rollout that ran. Best baseline: the best answer "
        "without understanding.",
    ]
    compared = [one for summary in summaries.values() if summary.stopping is None for one in summary.comparisons]
    if compared:
        lines += few_tasks_notes(min(one.difference.tasks for one in compared), compared)
    equal: dict[str, list[str]] = {}
    for label, summary in summaries.items():
        if summary.stopping is not None:
            lines.append(f"{label}: {stopping_note(summary.stopping)}")
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


def print_matrix(console: Console, summaries: Mapping[str, EvalSummary], title: str) -> None:
    """Prints the table with rich."""
    print_tables(console, [matrix_table(summaries, title)], matrix_notes(summaries))


def markdown_matrix(summaries: Mapping[str, EvalSummary], title: str) -> str:
    """The same table as GitHub Markdown."""
    return markdown_tables([matrix_table(summaries, title)], matrix_notes(summaries))


def _of(summary: EvalSummary, scaffold: str) -> Estimate | None:
    return next((group.score for group in summary.scaffolds if group.scaffold == scaffold), None)


def _mean(scores: list[Estimate | None]) -> str:
    """Only if every environment has a score: means over different environments cannot be compared."""
    known = [score.mean for score in scores if score is not None]
    return f"{sum(known) / len(known):.2f}" if known and len(known) == len(scores) else NONE


def _score(group: ScaffoldSummary | None) -> str:
    """The cell of a score and its interval."""
    if group is None or group.score is None:
        return NONE
    return f"{group.score.mean:.2f} ±{(group.score.high - group.score.low) / 2:.2f}"


def _metric(group: ScaffoldSummary | None, name: str) -> str:
    return f"{group.metrics[name]:.2f}" if group and name in group.metrics else NONE


def _difference(comparison: Comparison | None) -> str:
    """The cell of a paired difference."""
    if comparison is None:
        return NONE
    difference = f"{comparison.difference.mean:+.2f}"
    if comparison.mcnemar is not None:
        return f"{difference} (p {comparison.p_holm:.2f})"
    return f"{difference} (n {comparison.tasks_needed:,})" if comparison.tasks_needed else difference


def _outcomes(group: ScaffoldSummary | None) -> str:
    """The cell that counts outcomes."""
    if group is None:
        return NONE
    counts = [f"{count} {name}" for name, count in group.outcomes.items() if count and name != Outcome.ANSWERED]
    return ", ".join(counts) or NONE


def _tokens(group: ScaffoldSummary | None) -> str:
    """The cell of tokens per rollout: root + sub."""
    if group is None or not group.ran:
        return NONE
    root = group.root_prompt_tokens + group.root_completion_tokens
    sub = group.sub_prompt_tokens + group.sub_completion_tokens
    return f"{root:,.0f} + {sub:,.0f}" if sub else f"{root:,.0f}"


def _best_baseline(summary: EvalSummary) -> str:
    """The cell of the highest baseline."""
    scores = {baseline.name: baseline.score.mean for baseline in summary.baselines if baseline.score}
    if not scores:
        return NONE
    name = max(scores, key=lambda name: scores[name])
    return f"{scores[name]:.2f} {name}"
