"""The environment `deepdive-rlm`: options, tasks, tools, scores."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

from deepdive_rlm import trail
from deepdive_rlm.baselines import BASELINES
from deepdive_rlm.client import BLOCKED, SERPER, Connections, LocalWeb, OpenWeb, Web
from deepdive_rlm.hub import HubOptions, hub_tasks
from deepdive_rlm.judge import Judge
from deepdive_rlm.questions import Question, make_question
from deepdive_rlm.schema import COUNTS
from deepdive_rlm.server import WORLDS, Site, WebServer
from deepdive_rlm.tools import make_tools
from deepdive_rlm.world import World
from rlm_env.authoring.draw import Draw
from rlm_env.authoring.options import at_least, counts, one_of
from rlm_env.environment import Environment
from rlm_env.llm.base import LLM
from rlm_env.llm.openai_chat import OpenAIChat
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import deepdive

FORMAT = 1
"""Part of every seed: raised when the bytes of generated tasks change."""
DEFAULT_HOPS = {"standard": [2, 3, 4], "tiny": [1]}
HOST = re.compile(r"(train|eval)-(\d+)\.deepdive\.example")


class DeepDive(Environment):
    """Multi-hop web research: questions that only several pages of a web answer together.

    Options, all by keyword:

    - `dataset`: `generated` (a small web of our own, served on 127.0.0.1), or `hub` (zai-org/DeepDive on the open web).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless where generated, all where published).
    - generated: `hops`, cycled over (None: 2, 3, 4; tiny 1); `obfuscate`: whether questions describe things and decades
      in place of words and years that stand on the pages (None: yes; tiny no); `tasks_per_world`; `profile`:
      `standard` (3,704 pages), or `tiny` (88 pages) for very small models.
    - hub: `revision` (None: the tested commit); `files`, a local copy; `api_key_env`, the variable with the key for
      Serper; `search_url`, another service that answers in its shape; `blocked_hosts`, neither shown nor read (None:
      those where the published answers lie).
    - `judge`: an LLM, or the options of an `OpenAIChat`, to be asked where the rules see no equal answer (None: rules
      only); `judge_mode`: how its verdict is read, see `rewards/rlm_rewards/deepdive.py`; `judge_cache`: a file for its
      replies.

    Who has the tools is the option `tools_for` of the scaffold: sub-LLMs only, unless set.
    """

    name = "deepdive-rlm"
    tips = (resources.files("deepdive_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        dataset: Literal["generated", "hub"] = "generated",
        seed: int = 0,
        num_tasks: int | None = None,
        hops: int | Sequence[int] | None = None,
        obfuscate: bool | None = None,
        tasks_per_world: int | None = None,
        profile: Literal["standard", "tiny"] = "standard",
        revision: str | None = None,
        files: str | Path | None = None,
        api_key_env: str | None = None,
        search_url: str | None = None,
        blocked_hosts: Sequence[str] | None = None,
        judge: LLM | Mapping[str, Any] | None = None,
        judge_mode: Literal["official", "strict"] = "strict",
        judge_cache: str | Path | None = None,
    ) -> None:
        self.dataset = one_of("dataset", dataset, ("generated", "hub"))
        self.seed, self.num_tasks = seed, at_least("num_tasks", num_tasks, 1)
        self.profile = one_of("profile", profile, COUNTS)
        self.judge_mode = one_of("judge_mode", judge_mode, deepdive.MODES)
        if isinstance(judge, Mapping):
            judge = OpenAIChat(**judge)
        self._judge = None if judge is None else Judge(judge, judge_cache)
        if judge is None and judge_cache is not None:
            raise ValueError("judge_cache: there is no judge; name one with judge")
        if dataset == "generated":
            online = {"api_key_env": api_key_env, "search_url": search_url, "blocked_hosts": blocked_hosts}
            _refuse(dataset, revision=revision, files=files, **online)
        else:
            generated = {"hops": hops, "obfuscate": obfuscate, "tasks_per_world": tasks_per_world}
            _refuse(dataset, **generated, profile=None if profile == "standard" else profile)
        self.hops = counts("hops", DEFAULT_HOPS[profile] if hops is None else hops)
        self.obfuscate = profile != "tiny" if obfuscate is None else obfuscate
        self.tasks_per_world = 256 if tasks_per_world is None else counts("tasks_per_world", tasks_per_world)[0]
        self._hub = HubOptions(revision, files)
        self._api_key_env, self._search_url = api_key_env or "SERPER_API_KEY", search_url or SERPER
        self._blocked = BLOCKED if blocked_hosts is None else tuple(blocked_hosts)
        self._worlds: OrderedDict[str, World] = OrderedDict()
        self._lock = threading.Lock()
        self._server = WebServer(self._site)
        self._connections = Connections(public_only=dataset == "hub")

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        make = self._generate if self.dataset == "generated" else lambda split: hub_tasks(self._hub, split)
        return Tasks(lambda: islice(make(split), self.num_tasks), split)

    def tools(self, task: Task) -> list[Callable[..., Awaitable[str]]]:
        """`search_web`, `scan_page`, `open_lines`. Raises ValueError without a key for the open web."""
        return make_tools(self._web(task))

    def score(self, task: Task, rollout: Rollout) -> Score:
        rules = self._by_rules(task, rollout)
        metrics = {"rules": rules, **trail.metrics(rollout, task.info.get("evidence"))}
        value = rules
        judged = rollout.info.get("judge")
        if judged is not None:
            metrics["judge"] = float(deepdive.judge_verdict(judged["reply"], self.judge_mode))
            value = max(rules, metrics["judge"])
        return Score(value, metrics, answered=bool(deepdive.extract_answer(rollout.answer)))

    def _by_rules(self, task: Task, rollout: Rollout) -> float:
        return deepdive.score(rollout.answer, task.gold, task.info.get("aliases", ()), task.question)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES if self.dataset == "generated" else {}

    async def judge(self, task: Task, rollout: Rollout) -> None:
        """Asks the judge, where there is one, about an answer that the rules do not accept."""
        if self._judge is None or rollout.stop_reason is StopReason.ERROR or not rollout.answer.strip():
            return
        if self._by_rules(task, rollout):
            return
        reply = await self._judge.ask(question=task.question, gold=task.gold, response=rollout.answer)
        rollout.info["judge"] = {"model": self._judge.llm.name, "reply": reply}

    def perfect_answer(self, task: Task) -> str:
        return f"Answer: {task.gold}"

    async def aclose(self) -> None:
        """Stops the local server and closes connections."""
        await self._connections.aclose()
        self._server.stop()
        if self._judge is not None:
            await self._judge.llm.aclose()

    def world(self, name: str) -> World:
        """The web of that name, `<split>-<index>`; the last few are kept."""
        with self._lock:
            if name not in self._worlds:
                self._worlds[name] = World(name, self.profile, FORMAT, self.seed, name)
                while len(self._worlds) > WORLDS:
                    self._worlds.popitem(last=False)
            self._worlds.move_to_end(name)
            return self._worlds[name]

    def question(self, split: Split, index: int) -> tuple[World, Question]:
        """Question number `index`; depends on seed, split, index and the options, on nothing else."""
        world = self.world(f"{split}-{index // self.tasks_per_world}")
        draw = Draw("deepdive", FORMAT, self.seed, split, index)
        return world, make_question(world, draw, self.hops[index % len(self.hops)], self.obfuscate)

    def _generate(self, split: Split) -> Iterator[Task]:
        for index in count():
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
            yield Task(question.text, "", question.gold, f"{split}-{self.seed}-{index}", info)

    def _web(self, task: Task) -> Web:
        if self.dataset == "generated":
            return LocalWeb(self._server, f"{task.info['world']}.deepdive.example", self._connections)
        key = os.environ.get(self._api_key_env)
        if not key:
            raise ValueError(
                f"api_key_env: the environment variable {self._api_key_env} holds no key for {self._search_url}"
            )
        return OpenWeb(key, self._connections, self._search_url, self._blocked)

    def _site(self, host: str) -> Site | None:
        found = HOST.fullmatch(host)
        return None if found is None else Site(self.world(f"{found[1]}-{found[2]}"))


def _refuse(dataset: str, **options: object) -> None:
    """Options that the data set does not have."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"dataset {dataset!r} has no option {', '.join(given)}")
