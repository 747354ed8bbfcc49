"""The sub-LLM's part in the lessons of Oolong: labels of lines, and an oracle that knows them.

The prompts are the teachers' sub-calls; the answers come from contexts in which the labels are printed.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import rlm_env
from rlm_env.llm.base import LLM, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message

_LINE = re.compile(r"\|\| Instance: (.*?)(?: \|\| Label: (.*))?$", re.MULTILINE)
_COUNT = re.compile(r"Count ([^:]+): ")


class LabelOracle(LLM):
    """Answers sub-calls from a table of labels, in place of the sub-LLM while sessions are recorded."""

    name = "label-oracle"

    def __init__(self, label_of: dict[str, str] | None = None) -> None:
        self.label_of = label_of or {}

    def learn(self, labeled_context: str) -> None:
        """Adds the labels of a context whose lines end in `|| Label: ...`."""
        self.label_of.update(_LINE.findall(labeled_context))

    def answer(self, prompt: str) -> str:
        """The right answer to a prompt of the teachers. Raises LLMError for any other."""
        if count := _COUNT.match(prompt):
            return str(self._counts(prompt)[count[1]])
        if not prompt.startswith("Label: "):
            raise LLMError("the oracle knows no such prompt")
        text = prompt.removeprefix("Label: ")
        if text in self.label_of:
            return self.label_of[text]
        return self._counts(prompt).most_common(1)[0][0]

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        return Completion(self.answer(messages[-1]["content"]), finish_reason="stop")

    def _counts(self, context: str) -> Counter[str]:
        found = Counter(self.label_of[text] for text, _ in _LINE.findall(context) if text in self.label_of)
        if not found:
            raise LLMError("the oracle knows no such prompt")
        return found


def learn_labels(contexts: int, **options: Any) -> LabelOracle:
    """An oracle that knows the lines of so many contexts of the easy vocabulary's split `train`."""
    oracle = LabelOracle()
    env = rlm_env.load_environment("oolong-rlm", vocabulary="easy", with_labels=True, **options)
    for task in islice(env.tasks("train"), contexts):
        oracle.learn(task.context)
    return oracle


def conversation(prompt: str, reply: str) -> list[Message]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


def label_readings(oracle: LabelOracle, noise: float, draw: random.Random) -> list[list[Message]]:
    """One conversation per known instance text. A share `noise` of the labels is replaced by random ones: the knob for
    a weaker reader."""
    labels = sorted(set(oracle.label_of.values()))
    return [
        conversation(f"Label: {text}", draw.choice(labels) if draw.random() < noise else label)
        for text, label in sorted(oracle.label_of.items())
    ]


def context_readings(contexts: Iterable[str], oracle: LabelOracle, draw: random.Random) -> list[list[Message]]:
    """Sub-calls with a whole short context. The answers are right; a small model learns their form and little more."""
    labels = sorted(set(oracle.label_of.values()))
    prompts = [f"{draw.choice(['Label', f'Count {draw.choice(labels)}'])}: {context}" for context in contexts]
    return [conversation(prompt, oracle.answer(prompt)) for prompt in prompts]
