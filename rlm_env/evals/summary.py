"""What a run came to, so far: rows of rollouts summed up per scaffold, per scaffold and context length, and between scaffolds.

Covered: the numbers of summary.json and of every table. Not covered: their layout (`report.py`).
Tokens, calls and seconds are means over the rollouts that ran: a prompt that overflowed cost nothing, and counting
it would make the scaffold that could not even start look cheap.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlm_env.evals.baselines import Baseline
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.pairs import McNemar, mcnemar, tasks_needed
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.evals.stats import Estimate, clustered_mean, majority_vote, mean_pass_at_k, paired_difference
from rlm_env.evals.usage import NAMES
from rlm_env.repl.bounds import first_line

SAME_LENGTH = 1.5
"""Context lengths within this factor of the shortest of a group are reported as one."""


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one scaffold, all or those of one context length."""

    scaffold: str
    length: int | None
    """Mean context length in tokens where the group is one of lengths; None for all."""
    rollouts: int
    tasks: int
    outcomes: dict[str, int]
    """How many rollouts came to what; every `Outcome` is there."""
    budgets: dict[str, int]
    """Of the outcome `budget`: which one."""
    errors: dict[str, int]
    """First lines of error texts, the most frequent first, at most 5."""
    score: Estimate | None
    """Mean over tasks; errors are left out, an overflow without an answer is 0."""
    scored: int
    """Rollouts that `score` is over."""
    pass_at_k: dict[int, Estimate]
    majority: Estimate | None
    ran: int
    """Rollouts with at least one reply; the means below are over these."""
    turns: float
    root_prompt_tokens: float
    root_completion_tokens: float
    longest_prompt: int
    """Most tokens of any root prompt that the engine took."""
    needed_prompt: int | None
    """Most tokens of a prompt that overflowed."""
    sub_calls: float
    failed_sub_calls: float
    sub_prompt_tokens: float
    sub_completion_tokens: float
    seconds: dict[str, float]
    """total, root, sub, code, setup; what is left of the total is the host's own work."""
    ledger: dict[str, float]
    """Means of `rlm_env.evals.usage`."""
    score_per_1k_root_tokens: float | None
    """Main-model token efficiency: the scores of all scored rollouts over the root tokens of all of them, those with
    an overflow charged with the prompt that did not fit; None where a prompt's length is unknown."""
    sandboxes: tuple[str, ...]
    """The isolation levels of the REPLs; empty for a scaffold without a REPL."""
    cost: float | None
    """US dollars of all rollouts together, errors too."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference of two scaffolds over the tasks that both have scores for."""

    scaffold: str
    baseline: str
    difference: Estimate
    mcnemar: McNemar | None
    """Where every task is right or wrong as a whole."""
    tasks_needed: int | None
    """To tell a difference such as this one from none, with a power of 0.8."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All groups of a run."""

    scaffolds: list[Group]
    lengths: list[Group]
    comparisons: list[Comparison]
    baselines: list[Baseline] = field(default_factory=list)
    """What answers without understanding score on the same tasks; empty until a run has ended."""
    differences: list[str] = field(default_factory=list)
    """Settings in which the scaffolds are not equal, one sentence each."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(
    rows: Iterable[RolloutStats],
    scaffolds: Sequence[str],
    seed: int = 0,
    baselines: Sequence[Baseline] = (),
    differences: Sequence[str] = (),
) -> Summary:
    """Sums up rows, scaffold by scaffold in the order given. The first scaffold is what the others are compared with."""
    rows = list(rows)
    by_scaffold = {scaffold: [row for row in rows if row.scaffold == scaffold] for scaffold in scaffolds}
    groups = [_group(scaffold, None, members, seed) for scaffold, members in by_scaffold.items()]
    by_length = [
        _group(scaffold, length, here, seed)
        for length, members in length_groups(rows)
        for scaffold in scaffolds
        if (here := [row for row in members if row.scaffold == scaffold])
    ]
    comparisons = [
        comparison
        for scaffold in scaffolds[1:]
        if (comparison := _compare(scaffold, by_scaffold[scaffold], scaffolds[0], by_scaffold[scaffolds[0]], seed))
    ]
    return Summary(groups, by_length, comparisons, list(baselines), list(differences))


def _compare(
    scaffold: str, rows: list[RolloutStats], baseline: str, others: list[RolloutStats], seed: int
) -> Comparison | None:
    ours, theirs = _scores(rows), _scores(others)
    difference = paired_difference(ours, theirs, seed)
    if difference is None:
        return None
    return Comparison(scaffold, baseline, difference, mcnemar(ours, theirs), tasks_needed(ours, theirs))


def length_groups(rows: Iterable[RolloutStats]) -> list[tuple[int, list[RolloutStats]]]:
    """Rows by context length, ascending: (mean length in tokens, rows). Rows without a length are left out."""
    groups: list[list[RolloutStats]] = []
    for row in sorted((row for row in rows if row.length), key=lambda row: row.length):
        if not groups or row.length > SAME_LENGTH * groups[-1][0].length:
            groups.append([])
        groups[-1].append(row)
    return [(round(_mean([row.length for row in group])), group) for group in groups]


def _group(scaffold: str, length: int | None, rows: list[RolloutStats], seed: int) -> Group:
    outcomes = Counter(row.outcome for row in rows)
    scores, scored = _scores(rows), [row for row in rows if row.score is not None]
    ran = [row for row in rows if (row.turns or row.sub_calls) and row.outcome is not Outcome.ERROR]
    most_repeats = max(map(len, scores.values()), default=0)
    votes: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for row in scored:
        votes[row.task_id].append((row.answer, row.score))
    errors = Counter(
        first_line(row.error or "") or "no reason was recorded" for row in rows if row.outcome is Outcome.ERROR
    )
    costs = [row.cost for row in rows if row.cost is not None]
    return Group(
        scaffold=scaffold,
        length=length,
        rollouts=len(rows),
        tasks=len({row.task_id for row in rows}),
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
        budgets=dict(Counter(row.stop_reason.value for row in rows if row.outcome is Outcome.BUDGET)),
        errors=dict(errors.most_common(5)),
        score=clustered_mean(scores, seed),
        scored=len(scored),
        pass_at_k={k: estimate for k in powers(most_repeats) if (estimate := mean_pass_at_k(scores, k, seed))},
        majority=majority_vote(votes, seed) if most_repeats > 1 else None,
        ran=len(ran),
        turns=_mean([row.turns for row in ran]),
        root_prompt_tokens=_mean([row.root.prompt_tokens for row in ran]),
        root_completion_tokens=_mean([row.root.completion_tokens for row in ran]),
        longest_prompt=max((row.longest_prompt for row in rows), default=0),
        needed_prompt=max((row.needed_prompt for row in rows if row.needed_prompt is not None), default=None),
        sub_calls=_mean([row.sub_calls for row in ran]),
        failed_sub_calls=_mean([row.failed_sub_calls for row in ran]),
        sub_prompt_tokens=_mean([row.sub.prompt_tokens for row in ran]),
        sub_completion_tokens=_mean([row.sub.completion_tokens for row in ran]),
        seconds={
            part: _mean([getattr(row.timing, part) for row in ran])
            for part in ("total", "root", "sub", "code", "setup")
        },
        ledger={name: _mean([row.ledger[name] for row in ran]) for name in NAMES},
        score_per_1k_root_tokens=_efficiency(scored),
        sandboxes=tuple(sorted({row.sandbox for row in rows if row.sandbox})),
        cost=math.fsum(costs) if costs else None,
    )


def _efficiency(scored: list[RolloutStats]) -> float | None:
    charged = [row.charged_tokens for row in scored]
    if not charged or None in charged or not sum(charged):
        return None
    return 1000 * math.fsum(row.score for row in scored) / sum(charged)


def powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself; empty below 2 (pass@1 alone says nothing new)."""
    return sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most}) if most > 1 else []


def _scores(rows: Iterable[RolloutStats]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.score is not None:
            scores[row.task_id].append(row.score)
    return scores


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
