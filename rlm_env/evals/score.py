"""Scores a finished or stopped eval again from its folder: after a mistake in a scorer, with other options or another
judge. No engine is asked but the judge.

How rollouts get their new scores is in `rescoring.py`.
"""

from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from rich.console import Console

from rlm_env.environment import Environment
from rlm_env.evals.baselines import BASELINES, baseline_notes, measure_in_folder
from rlm_env.evals.config import EvalConfig, EvalRunConfig
from rlm_env.evals.fairness import setting_differences
from rlm_env.evals.grading import try_scorer
from rlm_env.evals.matrix import MatrixResult, matrix_title, stored_result
from rlm_env.evals.progress import counting
from rlm_env.evals.rescoring import rescore, scoring_name
from rlm_env.evals.rollout_stats import stats_of
from rlm_env.evals.setup import environment_of, judge_of_options, load_tasks, price_notes, role_prices
from rlm_env.evals.stored import EvalResult, stored_baselines, stored_eval
from rlm_env.evals.summary import summarize
from rlm_env.evals.until import measured_tasks, until_test
from rlm_env.runs.config import RECORD, config_differences
from rlm_env.runs.console import say, say_note
from rlm_env.runs.engine_table import Role, by_role
from rlm_env.runs.engines import EnginePool
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.folder import CONFIG, RunFolder, read_run_config, read_summary, write_config, write_summary
from rlm_env.runs.judge import CountedJudge
from rlm_env.runs.models import ModelRef, resolve_model
from rlm_env.runs.options import MODEL_FOLDER, apply_overrides
from rlm_env.runs.record import TO_SCORE, adaptation_notes, hash_tasks, take_record, versions
from rlm_env.task import Task

AnyConfig = TypeVar("AnyConfig", bound=EvalConfig)
CHANGEABLE = frozenset(
    {"options", "environments", "concurrency", "prices", "out", "baselines", "judge_baselines", "baseline_seconds"}
    | {"judge_model", "judge_base_url", "judge_api_key_env", "engines", "api_key_env", "sub_api_key_env"}
)
"""Keys of a config that scoring again may change."""


async def score_eval(
    path: Path,
    overrides: dict[str, Any],
    console: Console,
    *,
    missing: bool = False,
    ask_judge: bool = False,
    out: Path | None = None,
) -> EvalResult | MatrixResult:
    """Scores the rollouts of the eval in `path`, or of a copy of it in `out`, and replaces results and summaries.

    `overrides` are values of the config, such as `{"options": {"mode": "official"}}`. `missing`: only rollouts without
    a score. `ask_judge`: ask the judge again also where its verdict is stored; done by itself if the option `judge` is
    another one. Raises ConfigError, RunStopped and CancelledError; what was scored by then is kept.
    """
    values = read_run_config(path)
    record = values.pop(RECORD, {})
    config = _config(EvalConfig, values, overrides, path)
    if not config.is_matrix:
        await _score_run(path, overrides, console, missing=missing, ask_judge=ask_judge, out=out)
        return stored_eval(out or path)
    labels = [label for label in config.runs() if (path / label / CONFIG).exists()]
    if out is not None:
        _copy(path, out)
        path = out
    for label in labels:
        await _score_run(path / label, overrides, console, missing=missing, ask_judge=ask_judge)
    write_config(path, {**config.as_toml(), RECORD: record})
    summaries = {label: read_summary(path / label) for label in labels}
    write_summary(path, {**read_summary(path), "title": matrix_title(config), "environments": summaries})
    return stored_result(path)


async def _score_run(
    path: Path,
    overrides: dict[str, Any],
    console: Console,
    *,
    missing: bool,
    ask_judge: bool,
    out: Path | None = None,
) -> None:
    """Scores the stored rollouts of one run."""
    values = read_run_config(path)
    record = take_record(values, path, TO_SCORE)
    config = _config(EvalRunConfig, values, overrides, path)
    old = _config(EvalRunConfig, values, {}, path)
    ask_judge = ask_judge or _judge(old) != _judge(config)
    entries = by_role(config.engine_entries())
    entry = entries.get("judge")
    models: dict[Role, ModelRef] = {"judge": resolve_model(entry.model, entry.base_url)} if entry else {}
    async with (
        EnginePool(entries, models, path, console, config.seed) as pool,
        contextlib.AsyncExitStack() as stack,
    ):
        judge = pool.judge or judge_of_options(config)
        environment = environment_of(config, _root(config), judge)
        stack.push_async_callback(environment.aclose)
        tasks = _tasks(config, environment, record, path)
        if warning := await try_scorer(environment, tasks[0]):
            say_note(console, warning)
        if out is not None:
            _copy(path, out)
            config = config.model_copy(update={"out": out})
        with RunFolder(config.out, resume=True) as folder:
            with counting(console, f"scoring the rollouts of {config.environment}") as report:
                scored = await rescore(
                    folder,
                    environment,
                    tasks,
                    scoring_name(environment, config.options),
                    everything=not missing,
                    judge_again=ask_judge,
                    concurrency=config.concurrency,
                    report=report,
                )
            say(console, f"scored {scored} rollouts of {config.environment}")
            if not missing:
                (config.out / BASELINES).unlink(missing_ok=True)
            scored_at = datetime.now(UTC).isoformat(timespec="seconds")
            record["scored"] = [*record.get("scored", ()), {"at": scored_at, "versions": versions()}]
            folder.write_config({**config.as_toml(), RECORD: record})
            await _summarize(folder, config, environment, tasks, record, console, judge)


async def _summarize(
    folder: RunFolder,
    config: EvalRunConfig,
    environment: Environment,
    tasks: list[Task],
    record: dict[str, Any],
    console: Console,
    judge: CountedJudge | None,
) -> None:
    """Replaces summary.json and results.jsonl, and counts what the judge has cost."""
    prices, old = role_prices(config, config.options), read_summary(folder.path)
    stats = {one.key: one for one in (stats_of(rollout, prices and prices.pair) for rollout in folder.rollouts())}
    baselines, complete = stored_baselines(old), False
    test = until_test(config, tasks)
    test.advance(stats)
    measured = measured_tasks(test, tasks, stats)
    try:
        if config.baselines:
            baselines, complete = await measure_in_folder(config, environment, measured, console)
    finally:
        notes = price_notes(config) + adaptation_notes(record.get("engines", {}))
        notes += baseline_notes(config, environment, baselines, complete=complete)
        differences = setting_differences(record["scaffolds"])
        stopping = test.stopping(stats)
        summary = summarize(stats.values(), config.scaffolds, config.seed, baselines, differences, notes, stopping)
        over = len(measured) if complete else 0
        if judge is not None and prices is not None and prices.judge is not None:
            cost, costs = prices.judge.of(judge.take_usage()), dict(old.get("side_costs_usd", {}))
            if cost is not None:
                costs["judge"] = costs.get("judge", 0.0) + cost
            spent = None if cost is None else (old.get("spent_usd") or 0.0) + cost
            old = {**old, "spent_usd": spent, "side_costs_usd": costs}
        folder.write_summary({**old, "baselines_over": over, **summary.to_dict()})
        folder.write_results(one.result() for one in stats.values())


def _config(kind: type[AnyConfig], stored: dict[str, Any], overrides: dict[str, Any], path: Path) -> AnyConfig:
    """The stored config with `overrides` over it. Raises ConfigError if they change more than the scoring."""
    try:
        old = kind.model_validate({**stored, "out": str(path)})
        new = kind.model_validate({**apply_overrides(stored, overrides), "out": str(path)})
    except ValidationError as error:
        raise ConfigError(explain_validation(error, kind, f"{path / CONFIG}")) from error
    differences = config_differences(old.as_toml(), new.as_toml(), CHANGEABLE)
    differences += [
        f"the {role} engine was {was.model}, is now {now.model}"
        for role, was, now in (("root", old.root, new.root), ("sub", old.sub, new.sub))
        if (was.model, was.base_url) != (now.model, now.base_url)
    ]
    if differences:
        raise ConfigError(
            "scoring again can change the options of the environment, not this:\n  " + "\n  ".join(differences)
        )
    return new


def _judge(config: EvalRunConfig) -> tuple[Any, ...]:
    """The keys of a config that decide which judge is asked."""
    engine = config.engine_of("judge")
    return config.options.get("judge"), engine and (engine.model, engine.base_url)


def _root(config: EvalRunConfig) -> ModelRef:
    """The root model; looked for only if an option of the environment needs its folder."""
    root = config.root
    return resolve_model(root.model, root.base_url) if MODEL_FOLDER in config.options.values() else ModelRef(root.model)


def _tasks(config: EvalRunConfig, environment: Environment, record: dict[str, Any], path: Path) -> list[Task]:
    """The tasks of the run. Raises ConfigError if they are not those that were sampled."""
    tasks = load_tasks(config, environment)
    if hash_tasks(tasks[: record["tasks"]]) != record["tasks_sha256"]:
        raise ConfigError(
            f"{path}: the environment now makes other tasks than those that were sampled; scoring again cannot change "
            "the options that tasks are made of"
        )
    return tasks


def _copy(path: Path, out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another --out folder for the copy")
    shutil.copytree(path, out, dirs_exist_ok=True)
