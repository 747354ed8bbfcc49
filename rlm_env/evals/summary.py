"""The numbers of summary.json and of every table: per scaffold, per context length, and between scaffolds.

Tokens, calls and seconds are means over the rollouts that ran: a prompt that overflowed cost nothing, and counting
it would make a scaffold that could not even start look cheap. Not covered: layout (`report.py`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rlm_env.averages import mean_or_zero
from rlm_env.evals.baselines import Baseline
from rlm_env.evals.outcomes import Outcome
from rlm_env.evals.pairs import McNemar, anytime_p, holm, mcnemar, tasks_needed, two_sided_p
from rlm_env.evals.programs import Program, Trait
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.evals.stats import (
    Estimate,
    clustered_mean,
    majority_vote,
    mean_pass_at_k,
    paired_difference,
)
from rlm_env.evals.until import Stopping
from rlm_env.evals.usage import NAMES
from rlm_env.repl.bounds import first_line
from rlm_env.runs.prices import total_cost

SAME_LENGTH = 1.5
"""Context lengths within this factor of the shortest one are reported together."""


@dataclass(frozen=True, slots=True)
class CountBin:
    """Rollouts whose number of something is from `low` to `high`, both included."""

    low: int
    high: int
    rollouts: int


@dataclass(frozen=True, slots=True)
class ProgramSummary:
    """The rollouts of one scaffold that wrote the same kind of program (`rlm_env.evals.programs.Program`)."""

    scaffold: str
    program: str
    rollouts: int
    score: Estimate | None
    """Mean over the tasks whose rollouts wrote it. Models choose programs by task, so that these means compare tasks
    as well as programs."""
    sub_calls: float
    """Mean per rollout; so are the next two."""
    tokens: float
    """Of root and sub-LLMs, prompts and completions."""
    seconds: float


@dataclass(frozen=True, slots=True)
class ScaffoldSummary:
    """The rollouts of one scaffold, all or those of one context length."""

    scaffold: str
    length: int | None
    """Mean context length in tokens; None over all lengths."""
    rollouts: int
    tasks: int
    outcomes: dict[str, int]
    """Number of rollouts per `Outcome`, zeros included."""
    budgets: dict[str, int]
    """Number of rollouts per stop reason, of those with the outcome `budget`."""
    errors: dict[str, int]
    """First lines of error texts, the most frequent first, at most 5."""
    unscored: int
    """Of the errors, the rollouts that have an answer, and whose scorer or judge failed."""
    score: Estimate | None
    """Mean over tasks; errors are left out, an overflow without an answer is 0."""
    scored: int
    """Number of rollouts with a score."""
    pass_at_k: dict[int, Estimate]
    majority: Estimate | None
    metrics: dict[str, float]
    """Means of `Score.metrics` over the scored rollouts that have them."""
    ran: int
    """Rollouts with at least one reply; the means below are over these."""
    turns: float
    root_prompt_tokens: float
    root_completion_tokens: float
    longest_prompt: int
    """Tokens of the longest root prompt that the engine accepted."""
    needed_prompt: int | None
    """Tokens of the longest prompt that overflowed, where known."""
    sub_calls: float
    failed_sub_calls: float
    sub_errors: dict[str, int]
    """Reasons of failed sub-calls with the number of rollouts that met them first, at most 3; errors included."""
    sub_prompt_tokens: float
    sub_completion_tokens: float
    seconds: dict[str, float]
    """total, root, sub, code, setup; the rest of the total is the host's own work."""
    usage: dict[str, float]
    """Means of the numbers in `rlm_env.evals.usage`."""
    score_per_1k_root_tokens: float | None
    """Sum of scores over sum of root tokens, times 1000; an overflow is charged with the prompt that did not fit.
    None if the length of such a prompt is unknown."""
    sandboxes: tuple[str, ...]
    """The isolation levels of the REPLs; empty for a scaffold without a REPL."""
    cost: float | None
    """US dollars of all rollouts together, failed ones included; None where a price, or the tokens of one, are not
    known."""
    sub_call_bins: list[CountBin]
    """Numbers of sub-calls, over the rollouts that ran: 0, 1, 2 to 3, 4 to 7 and so on; empty where there were none."""
    traits: dict[str, int]
    """Number of rollouts per trait of their programs (`rlm_env.evals.programs.Trait`), without zeros."""

    @property
    def cost_each(self) -> float | None:
        """US dollars per rollout."""
        return None if self.cost is None or not self.rollouts else self.cost / self.rollouts


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference of two scaffolds, over the tasks for which both have scores."""

    scaffold: str
    baseline: str
    difference: Estimate
    mcnemar: McNemar | None
    """None unless every score is 0 or 1, or where a test may have ended the run."""
    tasks_needed: int | None
    """Tasks that would tell a difference of this size from none, with a power of 0.8."""
    p: float
    """Two-sided; McNemar's where every score is 0 or 1, else of a sign-flip test; of bets where a test may have ended
    the run."""
    p_holm: float
    """The same, corrected for the number of comparisons that are made together (Holm)."""


@dataclass(frozen=True, slots=True)
class EvalSummary:
    """All numbers of a run."""

    scaffolds: list[ScaffoldSummary]
    lengths: list[ScaffoldSummary]
    comparisons: list[Comparison]
    baselines: list[Baseline] = field(default_factory=list)
    """Scores of answers without understanding on the same tasks; empty until a run has ended."""
    differences: list[str] = field(default_factory=list)
    """Settings that are not equal in all scaffolds, one sentence each."""
    notes: list[str] = field(default_factory=list)
    """Other remarks, one sentence each: what was left out for an endpoint, how far the baselines went."""
    programs: list[ProgramSummary] = field(default_factory=list)
    """What the code of scaffolds with a REPL did, per scaffold and kind of program."""
    stopping: Stopping | None = None
    """The test that may end the run before all tasks; None without one. With one, all intervals hold at any time, and
    tests that suppose a fixed number of tasks are left out."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(
    stats: Iterable[RolloutStats],
    scaffolds: Sequence[str],
    seed: int = 0,
    baselines: Sequence[Baseline] = (),
    differences: Sequence[str] = (),
    notes: Sequence[str] = (),
    stopping: Stopping | None = None,
) -> EvalSummary:
    """Summarizes rollouts, scaffold by scaffold in the order given. The others are compared with the first one.
    `stopping`: the test that may have ended the run; intervals then hold at any time."""
    stats, anytime = list(stats), stopping is not None
    by_scaffold = {scaffold: [one for one in stats if one.scaffold == scaffold] for scaffold in scaffolds}
    whole = [_summarize_scaffold(scaffold, None, members, seed, anytime) for scaffold, members in by_scaffold.items()]
    by_length = [
        _summarize_scaffold(scaffold, length, here, seed, anytime)
        for length, members in length_groups(stats)
        for scaffold in scaffolds
        if (here := [one for one in members if one.scaffold == scaffold])
    ]
    first = by_scaffold[scaffolds[0]]
    comparisons = [
        comparison
        for scaffold in scaffolds[1:]
        if (comparison := _compare(scaffold, by_scaffold[scaffold], scaffolds[0], first, seed, anytime=anytime))
    ]
    programs = [
        one for scaffold, members in by_scaffold.items() for one in _programs(scaffold, members, seed, anytime=anytime)
    ]
    corrected, notes = with_holm(comparisons), list(notes)
    return EvalSummary(whole, by_length, corrected, list(baselines), list(differences), notes, programs, stopping)


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that are made together, each with its p corrected for their number."""
    corrected = holm([one.p for one in comparisons])
    return [replace(one, p_holm=p) for one, p in zip(comparisons, corrected, strict=True)]


def _compare(
    scaffold: str, stats: list[RolloutStats], baseline: str, others: list[RolloutStats], seed: int, *, anytime: bool
) -> Comparison | None:
    """The paired comparison of a scaffold with the first one; None without common tasks."""
    ours, theirs = scores_by_task(stats), scores_by_task(others)
    return compare_scores(scaffold, ours, baseline, theirs, seed, anytime=anytime)


def compare_scores(
    name: str,
    ours: Mapping[str, Sequence[float]],
    other: str,
    theirs: Mapping[str, Sequence[float]],
    seed: int = 0,
    *,
    anytime: bool = False,
) -> Comparison | None:
    """The paired comparison of two sets of scores (task id -> scores of its repeats); None without common tasks.
    `anytime`: by what holds at any number of tasks, as is needed where a test may have ended the run."""
    difference = paired_difference(ours, theirs, seed, anytime=anytime)
    if difference is None:
        return None
    if anytime:
        p = anytime_p(ours, theirs)
        return Comparison(name, other, difference, None, None, p, p)
    exact = mcnemar(ours, theirs)
    p = two_sided_p(ours, theirs, exact, seed)
    return Comparison(name, other, difference, exact, tasks_needed(ours, theirs), p, p)


def length_groups(stats: Iterable[RolloutStats]) -> list[tuple[int, list[RolloutStats]]]:
    """Rollouts by context length, ascending, each with its mean length in tokens; those without a length are left
    out."""
    groups: list[list[tuple[int, RolloutStats]]] = []
    for length, one in sorted(((one.length, one) for one in stats if one.length), key=lambda pair: pair[0]):
        if not groups or length > SAME_LENGTH * groups[-1][0][0]:
            groups.append([])
        groups[-1].append((length, one))
    return [(round(mean_or_zero([length for length, _ in group])), [one for _, one in group]) for group in groups]


def _summarize_scaffold(
    scaffold: str, length: int | None, stats: list[RolloutStats], seed: int, anytime: bool
) -> ScaffoldSummary:
    """All numbers of one scaffold's rollouts, of one context length or of all."""
    outcomes = Counter(one.outcome for one in stats)
    scores = scores_by_task(stats)
    ran = [one for one in stats if (one.turns or one.sub_calls) and one.outcome is not Outcome.ERROR]
    most_repeats = max(map(len, scores.values()), default=0)
    votes: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in stats:
        if one.score is not None:
            votes[one.task_id].append((one.answer, one.score))
    errors = Counter(
        first_line(one.error or "") or "no reason was recorded" for one in stats if one.outcome is Outcome.ERROR
    )
    return ScaffoldSummary(
        scaffold=scaffold,
        length=length,
        rollouts=len(stats),
        tasks=len({one.task_id for one in stats}),
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
        budgets=dict(Counter(one.stop_reason.value for one in stats if one.outcome is Outcome.BUDGET)),
        errors=dict(errors.most_common(5)),
        unscored=sum(one.unscored for one in stats),
        score=clustered_mean(scores, seed, anytime=anytime),
        scored=sum(map(len, scores.values())),
        pass_at_k={
            k: estimate for k in powers(most_repeats) if (estimate := mean_pass_at_k(scores, k, seed, anytime=anytime))
        },
        majority=majority_vote(votes, seed, anytime=anytime) if most_repeats > 1 else None,
        metrics=_metrics(stats),
        ran=len(ran),
        turns=mean_or_zero([one.turns for one in ran]),
        root_prompt_tokens=mean_or_zero([one.root.prompt_tokens for one in ran]),
        root_completion_tokens=mean_or_zero([one.root.completion_tokens for one in ran]),
        longest_prompt=max((one.longest_prompt for one in stats), default=0),
        needed_prompt=max((one.needed_prompt for one in stats if one.needed_prompt is not None), default=None),
        sub_calls=mean_or_zero([one.sub_calls for one in ran]),
        failed_sub_calls=mean_or_zero([one.failed_sub_calls for one in ran]),
        sub_errors=dict(Counter(first_line(one.sub_error) for one in stats if one.sub_error).most_common(3)),
        sub_prompt_tokens=mean_or_zero([one.sub.prompt_tokens for one in ran]),
        sub_completion_tokens=mean_or_zero([one.sub.completion_tokens for one in ran]),
        seconds={
            part: mean_or_zero([getattr(one.timing, part) for one in ran])
            for part in ("total", "root", "sub", "code", "setup")
        },
        usage={name: mean_or_zero([one.usage[name] for one in ran]) for name in NAMES},
        score_per_1k_root_tokens=_efficiency(stats),
        sandboxes=tuple(sorted({one.sandbox for one in stats if one.sandbox})),
        cost=total_cost(*(one.cost for one in stats)) if stats else None,
        sub_call_bins=count_bins([one.sub_calls for one in ran]),
        traits=_traits(stats),
    )


def _programs(scaffold: str, stats: list[RolloutStats], seed: int, *, anytime: bool) -> list[ProgramSummary]:
    """The programs of one scaffold's rollouts, in the order of `Program`; failed rollouts are left out."""
    found: dict[Program, list[RolloutStats]] = defaultdict(list)
    for one in stats:
        if one.program is not None and one.outcome is not Outcome.ERROR:
            found[one.program.program].append(one)
    return [
        ProgramSummary(
            scaffold=scaffold,
            program=program.value,
            rollouts=len(here),
            score=clustered_mean(scores_by_task(here), seed, anytime=anytime),
            sub_calls=mean_or_zero([one.sub_calls for one in here]),
            tokens=mean_or_zero([one.root.tokens + one.sub.tokens for one in here]),
            seconds=mean_or_zero([one.timing.total for one in here]),
        )
        for program in Program
        if (here := found.get(program))
    ]


def _traits(stats: list[RolloutStats]) -> dict[str, int]:
    """Rollouts per trait of their programs; failed ones are left out."""
    counts = Counter(
        trait
        for one in stats
        if one.program is not None and one.outcome is not Outcome.ERROR
        for trait in one.program.traits
    )
    return {trait.value: counts[trait] for trait in Trait if counts[trait]}


def count_bins(counts: Sequence[int]) -> list[CountBin]:
    """How many of the counts are 0, 1, 2 to 3, 4 to 7 and so on up to the largest; empty where all are 0."""
    if not any(counts):
        return []
    bits = Counter(count.bit_length() for count in counts)
    return [CountBin((1 << bit) >> 1, (1 << bit) - 1, bits[bit]) for bit in range(max(bits) + 1)]


def _metrics(stats: list[RolloutStats]) -> dict[str, float]:
    """Means of the scorer's metrics, by name."""
    values: dict[str, list[float]] = defaultdict(list)
    for one in stats:
        if one.score is not None:
            for name, value in one.metrics.items():
                values[name].append(float(value))
    return {name: mean_or_zero(found) for name, found in sorted(values.items())}


def _efficiency(stats: list[RolloutStats]) -> float | None:
    """Score per 1,000 root tokens; None if the tokens of a scored rollout are unknown."""
    scores: list[float] = []
    tokens = 0
    for one in stats:
        if one.score is None:
            continue
        if one.charged_tokens is None:
            return None
        scores.append(one.score)
        tokens += one.charged_tokens
    return 1000 * math.fsum(scores) / tokens if tokens else None


def powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself; empty below 2 (pass@1 alone says nothing new)."""
    return sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most}) if most > 1 else []


def scores_by_task(stats: Iterable[RolloutStats]) -> dict[str, list[float]]:
    """Task id -> scores of its rollouts."""
    scores: dict[str, list[float]] = defaultdict(list)
    for one in stats:
        if one.score is not None:
            scores[one.task_id].append(one.score)
    return scores
