"""The tables of an eval on one environment, for a terminal and as Markdown: layout and wording.

Not covered: the numbers (`summary.py`), the tables of costs by length and of programs (`detail_report.py`), the table
of several environments (`matrix_report.py`).
"""

from __future__ import annotations

from rich.console import Console

from rlm_env.evals.detail_report import detail_notes, detail_tables
from rlm_env.evals.explained import score_notes
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.stats import Estimate
from rlm_env.evals.summary import Comparison, EvalSummary, ScaffoldSummary
from rlm_env.evals.until import Stopping
from rlm_env.readable.words import counted
from rlm_env.runs.tables import NONE, Cells, markdown_tables, print_tables

MANY_SCAFFOLDS = 3
MANY_FAILED = 0.5
"""Share of failed sub-calls from which a report warns of them."""
RARE = (Outcome.UNPARSED, Outcome.REFUSED, Outcome.TIMEOUT)
"""Outcomes whose row is shown only if a rollout has them."""


def scaffold_table(summary: EvalSummary, title: str) -> Cells:
    """One column per scaffold, one row per number; rows without a value are left out."""
    scaffolds = summary.scaffolds
    table = Cells(title, ["", *(group.scaffold for group in scaffolds)], wrap=len(scaffolds) > MANY_SCAFFOLDS)

    def add(name: str, values: list[str]) -> None:
        if any(value != NONE for value in values):
            table.rows.append([name, *values])

    table.rows.append(["score [95 % interval]", *(_estimate(g.score) for g in scaffolds)])
    add("  over rollouts (tasks)", [f"{g.scored} ({g.score.tasks if g.score else 0})" for g in scaffolds])
    for k in sorted({k for g in scaffolds for k in g.pass_at_k}):
        add(f"pass@{k}", [_estimate(g.pass_at_k.get(k)) for g in scaffolds])
    add("majority vote", [_estimate(g.majority) for g in scaffolds])
    compared = {comparison.scaffold: comparison for comparison in summary.comparisons}
    if compared:
        baseline = summary.comparisons[0].baseline
        pairs = [compared.get(g.scaffold) for g in scaffolds]
        add(f"minus {baseline}, paired", [_signed(c.difference) if c else NONE for c in pairs])
        add("  right alone, wrong alone (McNemar p)", [_mcnemar(c) for c in pairs])
        corrected = len(compared) > 1
        if corrected or any(c.mcnemar is None for c in compared.values()):
            test = "sign-flip test" if summary.stopping is None else "of bets, at any time"
            name = f"  p, corrected for {len(compared)} comparisons (Holm)" if corrected else f"  p ({test})"
            add(name, [p_text(c.p_holm) if c else NONE for c in pairs])
        add(
            "  tasks needed to tell (power 0.8)",
            [f"{c.tasks_needed:,}" if c and c.tasks_needed else NONE for c in pairs],
        )
    for name in dict.fromkeys(name for g in scaffolds for name in g.metrics):
        add(f"metric {name}", [f"{g.metrics[name]:.3f}" if name in g.metrics else NONE for g in scaffolds])
    for outcome in Outcome:
        values = [str(g.outcomes[outcome]) for g in scaffolds]
        if outcome is Outcome.BUDGET:
            values = [_budgets(g) for g in scaffolds]
        if outcome is Outcome.OVERFLOW:
            values = [_overflow(g) for g in scaffolds]
        if outcome not in RARE or any(g.outcomes[outcome] for g in scaffolds):
            add(f"rollouts: {outcome}", values)
    add("turns", [_number(g.turns, g) for g in scaffolds])
    add(
        "root prompt tokens, longest",
        [_longest_prompt(g) for g in scaffolds],
    )
    add("root prompt tokens", [_told(g.root_prompt_tokens, g.root_prompt_tokens, g) for g in scaffolds])
    add(
        "root completion tokens",
        [_told(g.root_completion_tokens, g.root_prompt_tokens, g) for g in scaffolds],
    )
    add("sub-calls (failed)", [_sub_calls(g) for g in scaffolds])
    add("sub prompt tokens", [_told(g.sub_prompt_tokens, g.sub_prompt_tokens, g) for g in scaffolds])
    add(
        "sub completion tokens",
        [_told(g.sub_completion_tokens, g.sub_prompt_tokens, g) for g in scaffolds],
    )
    add("seconds", [_seconds(g.seconds["total"], g) for g in scaffolds])
    for part, name in (("root", "root LLM"), ("sub", "sub-LLMs"), ("code", "code"), ("setup", "REPL set-up")):
        add(f"  {name}", [_seconds(g.seconds[part], g) if g.seconds[part] else NONE for g in scaffolds])
    add("REPL sandbox", [", ".join(g.sandboxes) or NONE for g in scaffolds])
    efficiency = [g.score_per_1k_root_tokens for g in scaffolds]
    add("score per 1,000 root tokens", [NONE if value is None else f"{value:.3f}" for value in efficiency])
    add("cost, US$", [NONE if g.cost is None else f"{g.cost:.4f}" for g in scaffolds])
    return table


def baseline_table(summary: EvalSummary) -> Cells:
    """The baselines on the same tasks, the highest score first."""
    table = Cells("Baselines on the same tasks", ["policy", "score [95 % interval]"])
    for baseline in sorted(summary.baselines, key=lambda baseline: -(baseline.score.mean if baseline.score else -1.0)):
        table.rows.append([baseline.name, _estimate(baseline.score)])
    return table


def length_table(summary: EvalSummary) -> Cells:
    """One row per context length and scaffold; empty if the tasks have no `length_tokens`."""
    header = ["context", "scaffold", "score [95 %]", "outcomes", "longest prompt", "sub-calls", "seconds"]
    table = Cells("By context length (tokens)", header, keys=2)
    last = None
    for g in summary.lengths:
        length = f"{g.length:,}" if g.length is not None else NONE
        prompt = (
            f"{g.longest_prompt:,}"
            if g.ran and g.longest_prompt
            else f"needs {g.needed_prompt:,}"
            if g.needed_prompt
            else NONE
        )
        table.rows.append(
            [
                length if length != last else "",
                g.scaffold,
                _estimate(g.score, short=True),
                ", ".join(f"{g.outcomes[outcome]} {outcome}" for outcome in Outcome if g.outcomes[outcome]),
                prompt,
                _number(g.sub_calls, g) if g.sub_calls else NONE,
                _seconds(g.seconds["total"], g),
            ]
        )
        last = length
    return table


def stopping_table(stopping: Stopping) -> Cells:
    """The test that may end the run: a row for each condition."""
    title = "Decided" if stopping.decided else "Not decided yet"
    header = ["", "difference [95 %, any time]", "e-value >", "e-value <", "p (Holm)", "tasks"]
    table = Cells(f"{title}: the test of --until", header)
    for verdict in stopping.verdicts:
        cells = [NONE if verdict.difference is None else _signed(verdict.difference)]
        cells += [f"{verdict.e_greater:.3g}", f"{verdict.e_less:.3g}", f"{verdict.p:.2g}", str(verdict.tasks)]
        table.rows.append([str(verdict), *cells])
    return table


def stopping_note(stopping: Stopping) -> str:
    """How the test ended the run or did not, in words."""
    told = ", ".join(map(str, stopping.verdicts))
    if stopping.decided:
        decisive = max(verdict.tasks for verdict in stopping.verdicts)
        how = f"Stopped by its test after {stopping.begun} of {stopping.tasks} tasks ({stopping.saved} saved): {told}, "
        how += f"decided on the first {decisive}."
    else:
        how = f"The test has not decided ({told}) after {stopping.begun} of {counted(stopping.tasks, 'task')}."
    passed = counted(stopping.passed_over, "task")
    over = f" Passed over: {passed} without a score." if stopping.passed_over else ""
    many = ", over all comparisons by Holm's method" if len(stopping.verdicts) > 1 else ""
    return (
        f"{how}{over} Test: {stopping.method}; wrong in at most {stopping.level:.2%} of runs{many}. e-value: what bets "
        "on this side have made of a stake of 1. All intervals and p hold at any time: however often one looks, and "
        "whenever one stops. Tests that suppose a fixed number of tasks are left out."
    )


def report_notes(summary: EvalSummary) -> list[str]:
    """Remarks below the tables, one sentence each."""
    lines = [
        "Turns, tokens, sub-calls and seconds are means per rollout that ran (overflows and errors did not). Score per "
        "1,000 root tokens is over all that were scored; an overflow is charged with the prompt that did not fit."
    ]
    lines += score_notes(summary)
    if summary.baselines:
        lines.append(
            "Baselines are answers without understanding: what a score may owe to the form of the answer alone."
        )
    if summary.stopping is not None:
        lines.append(stopping_note(summary.stopping))
    lines += [*detail_notes(summary), *summary.notes]
    lines += [f"Not on equal terms: {difference}" for difference in summary.differences]
    return lines


def report_warnings(summary: EvalSummary) -> list[str]:
    """What spoils the numbers above, one sentence each."""
    lines = []
    for group in summary.scaffolds:
        reasons = "; ".join(f"{n} x {text}" for text, n in group.errors.items())
        if count := group.outcomes[Outcome.ERROR]:
            lines.append(f"{group.scaffold}: {count} rollouts failed and are in no mean ({reasons}). {_remedy(group)}")
        if group.failed_sub_calls and group.failed_sub_calls >= MANY_FAILED * group.sub_calls:
            which = "all" if group.failed_sub_calls == group.sub_calls else f"{group.failed_sub_calls:.1f} of"
            why = "; ".join(group.sub_errors)
            lines.append(f"{group.scaffold}: {which} {group.sub_calls:.1f} sub-calls per rollout failed ({why}).")
    return lines


def _remedy(group: ScaffoldSummary) -> str:
    """What a warning about failed rollouts advises."""
    if group.unscored == group.outcomes[Outcome.ERROR]:
        return "Their answers are kept: --resume or `rlm-env score FOLDER` scores them, without an engine."
    if group.unscored:
        return f"--resume repeats them, but for {group.unscored} that have an answer, which it scores."
    return "--resume repeats them."


def print_report(console: Console, summary: EvalSummary, title: str) -> None:
    """Prints the tables with rich."""
    print_tables(console, report_tables(summary, title), report_notes(summary), report_warnings(summary))


def markdown_report(summary: EvalSummary, title: str) -> str:
    """The same tables as GitHub Markdown."""
    return markdown_tables(report_tables(summary, title), [*report_notes(summary), *report_warnings(summary)])


def report_tables(summary: EvalSummary, title: str) -> list[Cells]:
    """All tables of the report, in order."""
    stopping = [stopping_table(summary.stopping)] if summary.stopping else []
    lengths = [length_table(summary)] if summary.lengths else []
    baselines = [baseline_table(summary)] if summary.baselines else []
    return [scaffold_table(summary, title), *stopping, *lengths, *detail_tables(summary), *baselines]


def _estimate(estimate: Estimate | None, *, short: bool = False) -> str:
    """A mean with its interval, as text."""
    if estimate is None:
        return NONE
    digits = 2 if short else 3
    return f"{estimate.mean:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _signed(estimate: Estimate) -> str:
    """A difference with its interval, as text."""
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def p_text(p: float) -> str:
    """A p-value as text; none is shown as 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _mcnemar(comparison: Comparison | None) -> str:
    """Tasks that only one of two scaffolds got right, and the test's p, as text."""
    if comparison is None or comparison.mcnemar is None:
        return NONE
    test = comparison.mcnemar
    return f"{test.only_ours}, {test.only_theirs} ({p_text(test.p)})"


def _number(value: float, group: ScaffoldSummary) -> str:
    """A mean per rollout, as text."""
    if not group.ran:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _told(tokens: float, prompt_tokens: float, group: ScaffoldSummary) -> str:
    """A mean of tokens, as text; none where no engine told those of a prompt, which is never empty."""
    return _number(tokens, group) if prompt_tokens else NONE


def _longest_prompt(group: ScaffoldSummary) -> str:
    return f"{group.longest_prompt:,}" if group.ran and group.longest_prompt else NONE


def _seconds(value: float, group: ScaffoldSummary) -> str:
    return f"{value:.2f}" if group.ran else NONE


def _budgets(group: ScaffoldSummary) -> str:
    """The cell of the outcome `budget`, with the limits that were reached."""
    which = ", ".join(f"{name} {count}" for name, count in sorted(group.budgets.items()))
    return f"{group.outcomes[Outcome.BUDGET]} ({which})" if which else "0"


def _overflow(group: ScaffoldSummary) -> str:
    """The cell of the outcome `overflow`, with the longest prompt."""
    count = group.outcomes[Outcome.OVERFLOW]
    return f"{count} (up to {group.needed_prompt:,} tokens)" if count and group.needed_prompt else str(count)


def _sub_calls(group: ScaffoldSummary) -> str:
    """The cell of sub-calls, failed ones in brackets."""
    return f"{_number(group.sub_calls, group)} ({group.failed_sub_calls:.1f})" if group.sub_calls else NONE
