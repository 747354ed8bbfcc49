"""Plays a strategy of tiny-rlm's lessons in the real REPL."""

from __future__ import annotations

from collections.abc import Collection

from rlm_env.scaffolds.rlm import RLMEnv
from tiny_rlm.lessons import Lessons
from tiny_rlm.sessions import record_sessions


async def scores_of(env: RLMEnv, lessons: Lessons, strategy: str, n: int = 8) -> list[float]:
    """On the first training tasks; each session has to end with an answer that it calls ready."""
    played = await record_sessions(env, lessons, env.tasks("train").take(n), 0, strategy=strategy)
    return [session.score for session in played]


async def check_strategies(
    env: RLMEnv, lessons: Lessons, n: int = 8, right: Collection[str] = ()
) -> dict[str, list[float]]:
    """Each strategy's scores. The sound ones and those named in `right` are always right, the others not."""
    scores = {name: await scores_of(env, lessons, name, n) for name in lessons.strategies}
    sound = {name for name in scores if name.startswith("sound") or name in right}
    assert {name: scores[name] for name in sound if min(scores[name]) < 1} == {}
    assert {name: each for name, each in scores.items() if name not in sound and min(each) == 1} == {}
    assert abs(sum(lessons.strategies.values()) - 1) < 1e-9
    return scores
