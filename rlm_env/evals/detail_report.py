"""The tables of an eval beyond its scores: costs by context length, numbers of sub-calls, programs and their traits.

Layout and wording. Not covered: the numbers (`summary.py`), the tables of scores (`report.py`).
"""

from __future__ import annotations

from rlm_env.evals.programs import Trait
from rlm_env.evals.summary import EvalSummary, ScaffoldSummary
from rlm_env.runs.tables import NONE, Cells


def detail_tables(summary: EvalSummary) -> list[Cells]:
    """All tables of this module that have a row."""
    tables = (cost_table(summary), program_table(summary), trait_table(summary), sub_call_table(summary))
    return [table for table in tables if table.rows]


def detail_notes(summary: EvalSummary) -> list[str]:
    """Remarks on these tables, one sentence each."""
    lines = []
    if summary.programs:
        lines.append(
            "Programs are read off the code of all cells, sub-calls off the record. Models choose programs by task, so "
            "that scores of programs compare tasks as well."
        )
    if summary.lengths and all(group.cost is None for group in summary.scaffolds):
        lines.append(
            "No prices are known (--prices, or `prices` of an engine; a vLLM of your own has none), or an endpoint "
            "does not tell tokens, so that there is no money in the tables."
        )
    return lines


def cost_table(summary: EvalSummary) -> Cells:
    """What a rollout takes at each context length; empty if the tasks have no `length_tokens`."""
    header = ["context", "scaffold", "score", "root tokens", "sub tokens", "sub-calls", "seconds", "US$ each"]
    table = Cells("Cost of a rollout by context length (tokens)", header, keys=2)
    last = None
    for g in summary.lengths:
        length = f"{g.length:,}"
        numbers = [NONE] * 4
        if g.ran:
            root, sub = tokens_of(g)
            known = [f"{root:,.0f}" if root else NONE, f"{sub:,.0f}" if sub or not g.sub_calls else NONE]
            numbers = [*known, f"{g.sub_calls:,.1f}", f"{g.seconds['total']:.2f}"]
        score = f"{g.score.mean:.2f}" if g.score else NONE
        each = NONE if g.cost_each is None else f"{g.cost_each:.5f}"
        table.rows.append([length if length != last else "", g.scaffold, score, *numbers, each])
        last = length
    return table


def tokens_of(group: ScaffoldSummary) -> tuple[float, float]:
    """Mean tokens of root and sub-LLMs per rollout that ran."""
    root = group.root_prompt_tokens + group.root_completion_tokens
    return root, group.sub_prompt_tokens + group.sub_completion_tokens


def program_table(summary: EvalSummary) -> Cells:
    """One row per scaffold and kind of program; empty without a REPL."""
    header = ["scaffold", "program", "rollouts", "share", "score [95 % interval]", "sub-calls", "tokens", "seconds"]
    table = Cells("What programs the model wrote", header, keys=2)
    totals: dict[str, int] = {}
    for one in summary.programs:
        totals[one.scaffold] = totals.get(one.scaffold, 0) + one.rollouts
    last = None
    for one in summary.programs:
        table.rows.append(
            [
                one.scaffold if one.scaffold != last else "",
                one.program,
                str(one.rollouts),
                f"{one.rollouts / totals[one.scaffold]:.0%}",
                NONE if one.score is None else str(one.score),
                f"{one.sub_calls:,.1f}",
                f"{one.tokens:,.0f}" if one.tokens else NONE,
                f"{one.seconds:.2f}",
            ]
        )
        last = one.scaffold
    return table


def trait_table(summary: EvalSummary) -> Cells:
    """The share of rollouts with each trait; a column per scaffold with a REPL."""
    counts = {name: 0 for name in dict.fromkeys(one.scaffold for one in summary.programs)}
    for one in summary.programs:
        counts[one.scaffold] += one.rollouts
    groups = [group for group in summary.scaffolds if group.scaffold in counts]
    table = Cells("Of these programs", ["", *(group.scaffold for group in groups)])
    for trait in Trait:
        if any(group.traits.get(trait) for group in groups):
            shares = [f"{group.traits.get(trait, 0) / counts[group.scaffold]:.0%}" for group in groups]
            table.rows.append([trait.value, *shares])
    return table


def sub_call_table(summary: EvalSummary) -> Cells:
    """How many rollouts made how many sub-calls; a column per scaffold that made any."""
    groups = [group for group in summary.scaffolds if group.sub_call_bins]
    table = Cells("Sub-calls of a rollout", ["", *(group.scaffold for group in groups)])
    most = max((len(group.sub_call_bins) for group in groups), default=0)
    for index in range(most):
        bins = [group.sub_call_bins[index] if index < len(group.sub_call_bins) else None for group in groups]
        low, high = next((one.low, one.high) for one in bins if one)
        name = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        table.rows.append([name, *(f"{one.rollouts:,}" if one else "0" for one in bins)])
    return table
