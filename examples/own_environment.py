#!/usr/bin/env python3
"""An environment of one's own: long ticket logs, a tool for the sub-LLMs, a judge, a metric; evaluated from Python.

    python examples/own_environment.py --model gpt-5-mini --base-url https://api.openai.com/v1 --key-env OPENAI_API_KEY

A context is a log of tickets. The question needs a fact that only the tool knows (which team owns a service), so a
sub-LLM has to look it up. To publish such an environment: `rlm-env new NAME` (docs/publishing.md).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

import rlm_env
from rlm_env import Rollout, Score, Task
from rlm_env.llm import LLM

OWNERS = {"login": "Team Kestrel", "search": "Team Heron", "billing": "Team Osprey", "mail": "Team Merlin"}


def owner_of(service: str) -> str:
    """The team that owns a service.

    Args:
        service: the name of the service, for example login
    """
    return OWNERS.get(service.lower(), "nobody owns a service of that name")


class Tickets(rlm_env.Environment):
    """Which team gets the most tickets?"""

    tips = "Count tickets by service with code; ask a sub-LLM only for what the log does not say."
    score_in_process = True  # no scorer process can import a class of the script that is run; not needed in a package

    def __init__(self, seed: int = 0, lines: int = 2_000, judge: LLM | None = None) -> None:
        """`lines`: tickets in a log. `judge`: asked whether an answer names the right team; None: compared as text."""
        self.seed, self.lines, self._judge = seed, lines, judge

    def tasks(self, split: str) -> Iterator[Task]:
        """Endless, and the same for the same seed."""
        index = 0
        while True:
            draw = random.Random(f"{self.seed}/{split}/{index}")
            weights = [draw.random() for _ in OWNERS]
            services = draw.choices(list(OWNERS), weights, k=self.lines)
            log = "\n".join(f"ticket {number}: {service} is slow" for number, service in enumerate(services))
            most = max(OWNERS, key=services.count)
            yield Task("Which team gets the most tickets?", log, OWNERS[most], info={"service": most})
            index += 1

    def tools(self, task: Task) -> list:
        """What sub-LLMs may call. Typed and documented functions; they run on the host."""
        return [owner_of]

    async def judge(self, task: Task, rollout: Rollout) -> None:
        """Leaves a verdict in the rollout, for `score` to read."""
        if self._judge is not None:
            text = f"Right answer: {task.gold}\nAnswer: {rollout.answer}\nIs it right? Reply yes or no."
            reply = await self._judge.complete([{"role": "user", "content": text}])
            rollout.info["verdict"] = reply.text.strip().lower().startswith("yes")

    def score(self, task: Task, rollout: Rollout) -> Score:
        """1 for the right team; the metric tells whether the service was found, which is half of the way."""
        right = rollout.info.get("verdict", str(task.gold).lower() in rollout.answer.lower())
        named_service = task.info["service"] in " ".join(turn.observation for turn in rollout.turns)
        return Score(float(right), {"service_was_seen": float(named_service)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-rlm")
    parser.add_argument("--base-url", help="an OpenAI-compatible endpoint (default: a local vLLM)")
    parser.add_argument("--key-env", help="the environment variable that holds its key")
    parser.add_argument("--tasks", type=int, default=4)
    given = parser.parse_args()
    result = rlm_env.evaluate_sync(
        Tickets(),
        model=given.model,
        base_url=given.base_url,
        api_key_env=given.key_env,
        scaffolds=["standard", "rlm"],
        n=given.tasks,
    )
    print(result.to_markdown())
    print(f"look at it: rlm-env view {result.path}")
