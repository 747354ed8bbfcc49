"""The two data sets of DeepDive: a dataclass of options each, whose `source` checks them.

A source gives the tasks of a split, and for each task the web that its tools search and read. The questions are made
in `questions.py` and `hub.py`, the webs are in `client.py`.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from deepdive_rlm.client import BLOCKED, SERPER, Connections, LocalWeb, OpenWeb
from deepdive_rlm.hub import PublishedSet, hub_tasks
from deepdive_rlm.questions import Question, make_question
from deepdive_rlm.schema import COUNTS
from deepdive_rlm.server import WORLDS, Site, WebServer
from deepdive_rlm.world import World
from rlm_env.authoring.draw import Draw
from rlm_env.authoring.options import counts, one_of
from rlm_env.task import Split, Task

FORMAT = 1
"""Part of every seed: raised when the bytes of generated tasks change."""
DEFAULT_HOPS = {"standard": [2, 3, 4], "tiny": [1]}
HOST = re.compile(r"(train|eval)-(\d+)\.deepdive\.example")


@dataclass(frozen=True, kw_only=True)
class GeneratedOptions:
    """`generated`: small webs of our own, served on 127.0.0.1."""

    profile: Literal["standard", "tiny"] = "standard"
    """`standard` (3,704 pages), or `tiny` (88 pages) for very small models."""
    hops: int | Sequence[int] | None = None
    """Links between the first page and the answer, cycled over; None: 2, 3, 4, tiny 1."""
    obfuscate: bool | None = None
    """Describe things and decades in place of the words and years on the pages; None: yes, tiny no."""
    tasks_per_world: int = 256
    """Consecutive tasks about the same web."""

    def source(self, seed: int) -> GeneratedSource:
        profile = one_of("profile", self.profile, COUNTS)
        return GeneratedSource(
            seed,
            profile,
            hops=counts("hops", DEFAULT_HOPS[profile] if self.hops is None else self.hops),
            obfuscate=profile != "tiny" if self.obfuscate is None else self.obfuscate,
            tasks_per_world=counts("tasks_per_world", self.tasks_per_world)[0],
        )


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """`hub`: zai-org/DeepDive on the open web, which knows no seed."""

    revision: str | None = None
    """Another commit than the tested one (40 hex digits)."""
    files: str | Path | None = None
    """A local copy of the published files."""
    api_key_env: str = "SERPER_API_KEY"
    """The environment variable that holds the key of the search service."""
    search_url: str = SERPER
    """The search service: Serper, or another one that answers in its shape."""
    blocked_hosts: Sequence[str] = BLOCKED
    """Hosts that are neither shown nor read; unless set, those that publish the answers."""

    def source(self, seed: int) -> HubSource:
        return HubSource(self)


class GeneratedSource:
    """Endless seeded tasks over generated worlds, and the server of those worlds."""

    def __init__(self, seed: int, profile: str, *, hops: Sequence[int], obfuscate: bool, tasks_per_world: int) -> None:
        self.seed, self.profile = seed, profile
        self.hops, self.obfuscate, self.tasks_per_world = hops, obfuscate, tasks_per_world
        self._worlds: OrderedDict[str, World] = OrderedDict()
        self._lock = threading.Lock()
        self.server = WebServer(self.site)
        self._connections = Connections(public_only=False)

    def tasks(self, split: Split) -> Iterator[Task]:
        return (self.task(split, index) for index in count())

    def task(self, split: Split, index: int) -> Task:
        """The task of question number `index`."""
        world, question = self.question(split, index)
        hops = len(question.walk) - 1
        info = {
            "family": f"{hops} hops",
            "hops": hops,
            "asked": question.query.asked,
            "profile": self.profile,
            "world": world.name,
            "aliases": list(question.aliases),
            "evidence": [world.url(world.things[id]) for id in question.evidence],
        }
        return Task(question.text, "", question.gold, f"{split}-{self.seed}-{index}", info)

    def question(self, split: Split, index: int) -> tuple[World, Question]:
        """Question number `index`; depends on seed, split, index and the options, on nothing else."""
        world = self.world(f"{split}-{index // self.tasks_per_world}")
        draw = Draw("deepdive", FORMAT, self.seed, split, index)
        return world, make_question(world, draw, self.hops[index % len(self.hops)], self.obfuscate)

    def world(self, name: str) -> World:
        """The world of that name, `<split>-<index>`; the last few are kept."""
        with self._lock:
            if name not in self._worlds:
                self._worlds[name] = World(name, self.profile, FORMAT, self.seed, name)
                while len(self._worlds) > WORLDS:
                    self._worlds.popitem(last=False)
            self._worlds.move_to_end(name)
            return self._worlds[name]

    def web(self, task: Task) -> LocalWeb:
        return LocalWeb(self.server, f"{task.info['world']}.deepdive.example", self._connections)

    def site(self, host: str) -> Site | None:
        """The site of a host of the server; None for a host that is no world."""
        found = HOST.fullmatch(host)
        return None if found is None else Site(self.world(f"{found[1]}-{found[2]}"))

    async def aclose(self) -> None:
        """Closes connections and stops the server; both start again when needed."""
        await self._connections.aclose()
        self.server.stop()


class HubSource:
    """The published tasks, on the open web."""

    def __init__(self, options: HubOptions) -> None:
        self._options = options
        self._connections = Connections(public_only=True)

    def tasks(self, split: Split) -> Iterator[Task]:
        return hub_tasks(PublishedSet(self._options.revision, self._options.files), split)

    def web(self, task: Task) -> OpenWeb:
        """Raises ValueError without a key for the search service."""
        options = self._options
        key = os.environ.get(options.api_key_env)
        if not key:
            raise ValueError(
                f"api_key_env: the environment variable {options.api_key_env} holds no key for {options.search_url}"
            )
        return OpenWeb(key, self._connections, options.search_url, options.blocked_hosts)

    async def aclose(self) -> None:
        await self._connections.aclose()


DATASETS: dict[str, type[GeneratedOptions | HubOptions]] = {"generated": GeneratedOptions, "hub": HubOptions}
