"""The shipped tiny-rlm in deepdive-rlm: under a scripted root LLM, or as the root LLM too."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import rlm_env
from rlm_env.llm import LLM
from rlm_env.rollout import Rollout
from rlm_env.runs.profile import rollout_profile
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from tiny_rlm.deepdive.lessons import DeepDiveLessons
from tiny_rlm.sessions import Teacher

MODEL = Path(rlm_env.__file__).parent / "models" / "tiny-rlm"


def web(**config) -> RLMEnv:
    """deepdive-rlm in its tiny profile, as tiny-rlm is to drive it."""
    return rlm_env.load_environment("deepdive-rlm", profile="tiny", **{**rollout_profile(MODEL), **config})


async def played(env: RLMEnv, tasks: list[Task], llm: LLM, *, scripted_root: bool) -> list[Rollout]:
    """A rollout of each task with `llm` as the sub-LLM; the root LLM is a sound teacher, or the same."""
    lessons = DeepDiveLessons()
    roots = [Teacher(lessons.plan(task, "sound", random.Random(0))) if scripted_root else llm for task in tasks]
    return await asyncio.gather(*(env.rollout(task, root, llm) for task, root in zip(tasks, roots, strict=True)))
