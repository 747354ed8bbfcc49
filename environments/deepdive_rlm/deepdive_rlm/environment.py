"""The environment `deepdive-rlm`: tasks, tools, judge, scores. The options of its data sets are in `datasets.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from deepdive_rlm import trail
from deepdive_rlm.baselines import BASELINES
from deepdive_rlm.datasets import DATASETS, GeneratedSource
from deepdive_rlm.judge import MAX_TOKENS, Judge
from deepdive_rlm.tools import make_tools
from rlm_env.authoring.indexed import check_index
from rlm_env.authoring.options import at_least, dataset_options, one_of
from rlm_env.environment import Environment
from rlm_env.llm.base import LLM
from rlm_env.llm.openai_chat import OpenAIChat
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import deepdive


class DeepDive(Environment):
    """Multi-hop web research: questions that only several pages of a web answer together.

    Options, all by keyword:

    - `dataset`: `generated` (a small web of our own, served on 127.0.0.1), or `hub` (zai-org/DeepDive on the open web).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless where generated, all where published).
    - `judge`: an LLM, or the options of an `OpenAIChat`, to be asked about answers that the rules do not accept (None:
      rules only); `judge_mode`: how its verdict is read, see `rewards/rlm_rewards/deepdive.py`; `judge_max_tokens`: of
      a reply of the judge, its reasoning included; `judge_cache`: a file that keeps its replies. A reply without a
      verdict is an error of the judge: the answer is not scored, and the reply is not kept.
    - the options of the data set, which are the fields of its class in `deepdive_rlm/datasets.py`: `GeneratedOptions`,
      `HubOptions`. An option of the other data set is refused.

    The scaffold's option `tools_for` says who has the tools: sub-LLMs only, unless set.
    """

    name = "deepdive-rlm"
    tips = (resources.files("deepdive_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        dataset: Literal["generated", "hub"] = "generated",
        seed: int = 0,
        num_tasks: int | None = None,
        judge: LLM | Mapping[str, Any] | None = None,
        judge_mode: Literal["official", "strict"] = "strict",
        judge_max_tokens: int | None = MAX_TOKENS,
        judge_cache: str | Path | None = None,
        **options: Any,
    ) -> None:
        common = ("dataset", "seed", "num_tasks", "judge", "judge_mode", "judge_max_tokens", "judge_cache")
        self.source = dataset_options(dataset, DATASETS, options, common).source(seed)
        self.dataset, self.num_tasks = dataset, at_least("num_tasks", num_tasks, 1)
        self.judge_mode = one_of("judge_mode", judge_mode, deepdive.MODES)
        if judge is None and judge_cache is not None:
            raise ValueError("judge_cache: there is no judge; name one with judge")
        if isinstance(judge, Mapping):
            judge = OpenAIChat(**judge)
        limit = at_least("judge_max_tokens", judge_max_tokens, 1)
        self._judge = (
            None if judge is None else Judge(judge, judge_cache, mode=self.judge_mode, max_tokens=limit or MAX_TOKENS)
        )

    def tasks(self, split: Split) -> Iterable[Task]:
        one_of("split", split, ("train", "eval"))
        return Tasks(lambda: islice(self.source.tasks(split), self.num_tasks), split)

    @property
    def makes_any_task(self) -> bool:
        """True where tasks are generated."""
        return isinstance(self.source, GeneratedSource)

    def task(self, split: Split, index: int) -> Task:
        if not isinstance(self.source, GeneratedSource):
            return super().task(split, index)
        one_of("split", split, ("train", "eval"))
        check_index(split, index, self.num_tasks)
        return self.source.task(split, index)

    def tools(self, task: Task) -> list[Callable[..., Awaitable[str]]]:
        """`search_web`, `scan_page`, `open_lines`. Raises ValueError without a key for the open web."""
        return make_tools(self.source.web(task))

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
        """Asks the judge, if there is one, about an answer that the rules do not accept."""
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
        await self.source.aclose()
        if self._judge is not None:
            await self._judge.llm.aclose()
