"""What an eval will take, before it is paid for: `--dry-run`, and `--pilot K`, which pays for the first K tasks.

A dry run makes what costs nothing (config, environment, tasks, scaffolds, prices) and estimates from the rollouts that
lie in the output folder; it asks no model and writes nothing. A pilot is a run on fewer tasks that is marked as one:
the eval itself, started in the same folder with the same options, takes its rollouts over. Not covered: the numbers
(`estimate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich.console import Console

from rlm_env.evals.config import EvalConfig, EvalRunConfig, check_eval_resume
from rlm_env.evals.estimate import Amount, RunEstimate, estimate, length_of_tasks, tasks_enough
from rlm_env.evals.grading import has_judge, try_scorer
from rlm_env.evals.hooks import NO_HOOKS, Hooks
from rlm_env.evals.matrix import run_any
from rlm_env.evals.rollout_stats import Key, RolloutStats
from rlm_env.evals.setup import environment_of, judge_of_options, load_tasks, make_scaffolds, price_notes
from rlm_env.evals.stored import holds_pilot, open_stored, run_title
from rlm_env.repl import ReplPools
from rlm_env.runs.console import say_note
from rlm_env.runs.engine_table import by_role
from rlm_env.runs.engines import EnginePool
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import CONFIG, ROLLOUTS, read_run_config, read_summary, refuse_foreign
from rlm_env.runs.models import resolve_engines
from rlm_env.runs.tables import NONE, Cells

QUESTION = "unknown"
"""A cell of which nothing is known. It is never 0."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """The estimate of an eval on one environment."""

    title: str
    config: EvalRunConfig
    estimate: RunEstimate
    spent: float | None
    """US dollars in the folder so far; None: unknown."""
    judged: bool
    """The environment may ask a judge, whose calls are not among the amounts."""
    judge_cost: float | None
    """US dollars that the judge will have cost; None: unknown."""

    @property
    def local(self) -> bool:
        """All engines run on this machine and have no price."""
        return all(entry.base_url is None and entry.prices is None for entry in self.config.engine_entries())


async def dry_run(config: EvalConfig, console: Console, *, pilot: int = 0, hooks: Hooks = NO_HOOKS) -> list[DryRun]:
    """The estimate of each environment. `pilot`: first run so many tasks of each, once, in every scaffold.

    Raises what `run_eval` raises; the rollouts of a pilot that was stopped are on disk, and it can be asked for again.
    """
    runs = config.runs()
    for run in runs.values():
        piloted = _check_folder(run, pilot=pilot > 0)
        pilot = max(pilot, piloted) if pilot else 0  # what is paid for stays
    made = {label: await _make(run, console, hooks) for label, run in runs.items()}
    if pilot:
        for label, (_, lengths) in made.items():
            if (enough := tasks_enough(lengths)) > pilot:
                say_note(console, f"{label}: --pilot {enough} would see all context lengths, {pilot} does not")
        await run_any(pilot_config(config, pilot), console, hooks=replace(hooks, pilot=True))
    return [_look(run, *made[label]) for label, run in runs.items()]


def pilot_config(config: EvalConfig, tasks: int) -> EvalConfig:
    """The config of the pilot of an eval."""
    environments = tuple(
        entry.model_copy(update={"n": min(tasks, entry.n or config.n)}) for entry in config.environments
    )
    few = {"n": min(tasks, config.n), "repeats": 1, "baselines": False, "until": (), "environments": environments}
    return config.model_copy(update=few)


def _check_folder(run: EvalRunConfig, *, pilot: bool) -> int:
    """The tasks of the pilot that the folder holds; 0 without one. Raises ConfigError if what it holds is of no use to
    the run, or is more than a pilot where one is asked for."""
    refuse_foreign(run.out)
    if not (run.out / CONFIG).exists():
        return 0
    if (of_pilot := holds_pilot(run.out)) < pilot:
        raise ConfigError(f"{run.out} holds a run already; --dry-run alone estimates what is left of it")
    stored = read_run_config(run.out)
    check_eval_resume(stored, run, run.out, pilot=of_pilot)
    return stored["n"] if of_pilot else 0


async def _make(run: EvalRunConfig, console: Console, hooks: Hooks) -> tuple[bool, dict[str, int]]:
    """Makes all of a run that costs nothing. Returns whether its environment has a judge, and the context lengths of
    its tasks. Raises ConfigError."""
    entries = by_role(run.engine_entries())
    models = resolve_engines(entries)
    async with ReplPools() as pools, EnginePool(entries, models, run.out, console, run.seed) as engines:
        judge = engines.judge or judge_of_options(run)
        environment = hooks.environments.get(run.environment) or environment_of(run, models["root"], judge)
        with console.status(f"making the tasks of {run.environment}"):
            tasks = load_tasks(run, environment)
        async with make_scaffolds(run, environment, models["root"], pools):
            judged = has_judge(environment)
        if not judged and (warning := await try_scorer(environment, tasks[0])):
            say_note(console, warning)
    return judged, length_of_tasks(tasks)


def _look(run: EvalRunConfig, judged: bool, lengths: Mapping[str, int]) -> DryRun:
    """The estimate of one run, from what is stored of it."""
    stats: dict[Key, RolloutStats] = {}
    spent, judge_cost = None, None
    if (run.out / ROLLOUTS).exists():
        stored = open_stored(run.out, prices_of=run)
        stats = {one.key: one for one in stored.stats()}
        summary = read_summary(run.out)
        spent = summary.get("spent_usd")
        scored = sum(one.score is not None for one in stats.values())
        if (cost := summary.get("side_costs_usd", {}).get("judge")) is not None and scored:
            judge_cost = cost / scored * len(lengths) * run.repeats * len(run.scaffolds)
    found = estimate(lengths, run.scaffolds, run.repeats, stats)
    return DryRun(run_title(run, len(lengths)), run, found, spent, judged, judge_cost)


def estimate_table(one: DryRun) -> Cells:
    """One row per scaffold and one for all; every amount with its interval."""
    header = ["scaffold", "rollouts", "known", "calls", "prompt tokens", "completion tokens", "seconds", "US$"]
    table = Cells(f"Estimate: {one.title}", header, wrap=True)
    at_once = max(1, min(one.config.concurrency, sum(row.rollouts for row in one.estimate.scaffolds)))
    for row in one.estimate.scaffolds:
        table.rows.append([row.scaffold, f"{row.rollouts:,}", f"{row.known:,}", *_cells(row.amounts, one, at_once)])
    rollouts, known = (sum(getattr(row, name) for row in one.estimate.scaffolds) for name in ("rollouts", "known"))
    totals = {name: one.estimate.total(name) for name in header[3:]}
    table.rows.append(["all", f"{rollouts:,}", f"{known:,}", *_cells(totals, one, at_once)])
    return table


def estimate_notes(one: DryRun) -> list[str]:
    """What the estimate rests on and what it leaves out, one sentence each."""
    found, lines = one.estimate, []
    known = sum(row.known for row in found.scaffolds)
    if not known:
        lines.append("No rollout is known yet, so nothing can be estimated: --pilot K pays for the first K tasks.")
    else:
        lines.append(
            f"From {known} rollouts in {one.config.out}, which are not paid again; in brackets 95 % prediction "
            f"intervals. Seconds: of all rollouts, {one.config.concurrency} at once."
        )
    for length, tasks in found.unseen.items():
        lines.append(
            f"Left out: {tasks} of {found.tasks} tasks, with contexts of about {length:,} tokens, of which no rollout "
            f"is known; --pilot {found.enough} has all lengths."
        )
    if failed := sum(row.failed for row in found.scaffolds):
        lines.append(f"Left out: {failed} rollouts that failed, which are made again.")
    if one.judged and one.judge_cost is None:
        lines.append("Left out: what the environment's judge may cost, which is unknown.")
    elif one.judged:
        lines.append(f"Besides, the judge: about {one.judge_cost:,.2f} US$.")
    if one.spent is not None:
        lines.append(f"Spent so far: {one.spent:,.4f} US$.")
    lines += price_notes(one.config)
    if one.config.until:
        lines.append(f"For all tasks; a decision ({', '.join(one.config.until)}) may end the run before.")
    money = found.total("US$")
    if one.config.max_cost is not None and money is not None and money.total > one.config.max_cost:
        lines.append(f"That is more than --max-cost {one.config.max_cost:g}, at which the run would stop.")
    return lines


def _cells(amounts: Mapping[str, Amount | None], one: DryRun, at_once: int) -> list[str]:
    """The amounts of a row as text."""
    cells = []
    for name, amount in amounts.items():
        if name == "US$" and amount is None and one.local:
            cells.append("0 (local)")
        elif amount is None:
            cells.append(QUESTION)
        elif name == "seconds":
            cells.append(_text(amount.divided(at_once), name))
        else:
            cells.append(_text(amount, name))
    return cells


def _text(amount: Amount, name: str) -> str:
    """An amount with its interval."""
    digits = 0 if name != "US$" else 2 if amount.total >= 1 else 4
    text = f"{amount.total:,.{digits}f}"
    if amount.low is None or amount.high is None:
        return f"{text} [{NONE}]"
    return text if amount.low == amount.high else f"{text} [{amount.low:,.{digits}f}, {amount.high:,.{digits}f}]"
