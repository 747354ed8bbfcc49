"""Scores stored rollouts: those without a score, or all of them again after a change of scorer, options or judge.

The new scores go into scores.jsonl one by one, so that an interrupted run loses none. When all are there, they are put
into rollouts.jsonl, which is replaced as a whole, so that it never holds scores of two kinds.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlm_env.environment import Environment
from rlm_env.evals.grading import JUDGED, drop_verdict, grade, is_scorable, is_unscored, judge_stop
from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import Rollout, Score
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import RunFolder
from rlm_env.runs.jsonl import JsonLog, read_jsonl
from rlm_env.scoring.errors import TRACEBACK
from rlm_env.task import Task

SCORES = "scores.jsonl"


async def rescore(
    folder: RunFolder,
    environment: Environment,
    tasks: Sequence[Task],
    scoring: str,
    *,
    everything: bool = True,
    judge_again: bool = False,
    concurrency: int = 16,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Scores the stored rollouts; returns how many. `everything` off: only those that have no score.

    `scoring` names this way of scoring: work that an interrupted run with the same name has stored is kept.
    `judge_again` off: a verdict that is stored with a rollout is used again, and nothing is asked. `report` is called
    after each rollout with the number done and the number of all. Raises RunStopped if the judge cannot be asked any
    more.
    """
    wanted = _wanted(folder, everything=everything)
    if not wanted:
        return 0
    by_id = {task.id: task for task in tasks}
    if missing := {task_id for task_id in wanted.values() if task_id not in by_id}:
        raise ConfigError(f"{folder.path} has rollouts of other tasks ({', '.join(sorted(missing)[:3])}, ...)")
    path = folder.path / SCORES
    stored = {entry["line"]: entry for entry in read_jsonl(path) if entry["line"] < 0 or entry["score"]}
    if stored and stored.get(-1, {}).get("scoring") != scoring:
        path.unlink()
        stored = {}
    with JsonLog(path) as log:
        if not stored:
            log.append({"line": -1, "scoring": scoring})
        left = ((line, rollout) for line, rollout in enumerate(folder.rollouts()) if line in wanted)
        left = ((line, rollout) for line, rollout in left if line not in stored)
        done = len(stored.keys() & wanted.keys())

        async def worker() -> None:
            nonlocal done
            for line, rollout in left:
                if judge_again:
                    drop_verdict(rollout)
                ask = judge_again or JUDGED not in rollout.info
                error = await grade(environment, by_id[rollout.task_id], rollout, ask_judge=ask)
                if isinstance(error, EngineUnavailable):
                    raise judge_stop(error)
                stored[line] = entry = _entry(line, rollout)
                log.append(entry)
                done += 1
                report(done, len(wanted))

        workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(wanted)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        folder.replace_rollouts(_with_scores(folder.rollouts(), stored))
    path.unlink()
    return len(wanted)


def scoring_name(environment: Environment, options: Mapping[str, Any]) -> str:
    """Tells apart ways of scoring: the options of the environment, and the text of its module."""
    try:
        source = inspect.getsource(sys.modules[type(environment).__module__])
    except (OSError, TypeError, KeyError):
        source = ""
    text = json.dumps([type(environment).__qualname__, dict(options), source], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _wanted(folder: RunFolder, *, everything: bool) -> dict[int, str]:
    """Line number -> task id of the rollouts to score. Of a rollout that is stored twice, the last line counts."""
    last: dict[tuple[str, str, int], tuple[int, str, bool]] = {}
    for line, rollout in enumerate(folder.rollouts()):
        wanted = is_scorable(rollout) if everything else is_unscored(rollout)
        key = (rollout.scaffold, rollout.task_id, int(rollout.info.get("repeat", 0)))
        last[key] = (line, rollout.task_id, wanted)
    return {line: task_id for line, task_id, wanted in last.values() if wanted}


def _entry(line: int, rollout: Rollout) -> dict[str, Any]:
    """What a score changes in a rollout."""
    judged = rollout.info.get(JUDGED, [])
    info = {key: rollout.info[key] for key in (TRACEBACK, JUDGED, *judged) if key in rollout.info}
    return {"line": line, "score": rollout.score and asdict(rollout.score), "error": rollout.error, "info": info}


def _with_scores(rollouts: Iterator[Rollout], scores: Mapping[int, Mapping[str, Any]]) -> Iterator[Rollout]:
    """The rollouts with new scores in place of the old ones."""
    for line, rollout in enumerate(rollouts):
        if entry := scores.get(line):
            drop_verdict(rollout)
            rollout.info.pop(TRACEBACK, None)
            rollout.info |= entry["info"]
            rollout.error = entry["error"]
            rollout.score = Score(**entry["score"]) if entry["score"] else None
        yield rollout
