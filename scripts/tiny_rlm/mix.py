"""What tiny-rlm is trained on: conversations from all lessons, as root LLM and as sub-LLM, kept apart by environment.

They are stored as one file per environment, so that an interrupted build goes on with the next one.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from tiny_rlm.lessons import Lessons
from tiny_rlm.profile import SCAFFOLDS, make_environment
from tiny_rlm.sessions import Conversation, Session, opening, record_sessions, record_with_tools, standard_answer

SHARES = {"rlm": 0.7, "rlm-tips": 0.15, "rlm-nosub": 0.15}
"""Of the sessions and of the openings."""
STANDARD_SHARE = 0.2
"""Answers of the standard scaffold, as a share of the number of sessions."""
LONGEST_STANDARD = 3000
"""Characters of a standard prompt that is trained on; longer ones teach little and cost most of the time."""
REQUESTS = 4
"""Requests to a sub-LLM with tools, as a multiple of the number of sessions."""
STATED_SIZES = (1, 40_000)
"""Half of the openings describe a context of so many lines or files, drawn uniformly in its logarithm: a reply that
sees only the description must not depend on the length of the context."""
HELD_OUT = 10
"""One sub-LLM prompt in so many is not trained on, but measured."""


@dataclass(slots=True)
class Mix:
    """The conversations of one environment."""

    environment: str
    sessions: list[Session] = field(default_factory=list)
    openings: list[Conversation] = field(default_factory=list)
    standard: list[Conversation] = field(default_factory=list)
    readings: list[Conversation] = field(default_factory=list)
    """As a sub-LLM: those of the sessions, and others."""

    def save(self, path: Path) -> None:
        """Writes one JSON file; a half-written one never has its name."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> Mix:
        """The inverse of `save`."""
        record = json.loads(path.read_text("utf-8"))
        kinds = {name: [Conversation(**each) for each in record[name]] for name in ("openings", "standard", "readings")}
        return cls(record["environment"], [Session.from_dict(each) for each in record["sessions"]], **kinds)

    @property
    def conversations(self) -> list[Conversation]:
        """All of them."""
        return [*(session.root for session in self.sessions), *self.openings, *self.standard, *self.readings]


async def make_mix(
    lessons: Lessons, sessions: int, openings: int, seed: int, on_session: Callable[[], None] = lambda: None
) -> Mix:
    """Records so many sessions and makes so many openings, each over the scaffolds by their shares."""
    mix = Mix(lessons.environment)
    draw = random.Random(f"{seed}/{lessons.environment}")
    for index, (scaffold, share) in enumerate(SHARES.items()):
        async with make_environment(lessons, 100 * seed + index, **SCAFFOLDS[scaffold]) as env:
            played, opened = round(sessions * share), round(openings * share)
            tasks = list(islice(env.tasks("train"), played + opened))
            mix.sessions += await record_sessions(env, lessons, tasks[:played], seed, on_session=on_session)
            mix.openings += [
                opening(env, lessons, task, f"{seed}/{scaffold}/{i}", stated_size(draw) if i % 2 else None)
                for i, task in enumerate(tasks[played:])
            ]
            if scaffold == "rlm":
                mix.standard = await _standard(env, lessons, tasks, round(sessions * STANDARD_SHARE), seed)
                mix.readings = [Conversation(messages) for messages in lessons.readings(tasks[:played], draw)]
                requests = lessons.requests(tasks[: REQUESTS * sessions], draw)
                mix.readings += await record_with_tools(env, lessons, requests, seed)
    mix.readings += [
        Conversation(lessons.varied(sub.messages, draw), sub.tools) for session in mix.sessions for sub in session.subs
    ]
    return mix


async def _standard(env: RLMEnv, lessons: Lessons, tasks: list[Task], n: int, seed: int) -> list[Conversation]:
    """Conversations of the standard scaffold, at most `n`."""
    if env.environment.tools(tasks[0]):
        return await record_with_tools(env, lessons, tasks[:n], seed)
    answers = (standard_answer(env, task) for task in tasks)
    return list(islice((a for a in answers if len(a.messages[0]["content"]) <= LONGEST_STANDARD), n))


def stated_size(draw: random.Random) -> int:
    """A number of lines or files, uniform in its logarithm."""
    low, high = STATED_SIZES
    return round(low * (high / low) ** draw.random())


def is_held_out(reading: Conversation) -> bool:
    """Whether it is kept for measuring, which its prompt decides."""
    return zlib.crc32(reading.messages[0]["content"].encode()) % HELD_OUT == 0
