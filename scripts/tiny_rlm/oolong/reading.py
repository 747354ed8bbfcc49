"""tiny-rlm's reading tasks, as its own sub-LLM and as the plain LLM of the standard scaffold, and an oracle for them.

The prompts are the teachers' sub-calls; the answers come from copies of the contexts in which the labels are printed.
Root turns are in `sessions.py`.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from collections.abc import Iterable

from rlm_env.llm.base import LLM, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message

_LINE = re.compile(r"\|\| Instance: (.*?)(?: \|\| Label: (.*))?$", re.MULTILINE)
_COUNT = re.compile(r"Count ([^:]+): ")
HELD_OUT = 5
"""One instance text in so many is held out of the reading tasks, to measure generalization."""


class LabelOracle(LLM):
    """Answers sub-calls from a table of labels, in place of the sub-LLM while sessions are recorded."""

    name = "label-oracle"

    def __init__(self) -> None:
        self.label_of: dict[str, str] = {}

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


def conversation(prompt: str, reply: str) -> list[Message]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


def is_held_out(text: str) -> bool:
    return zlib.crc32(text.encode()) % HELD_OUT == 0


def label_readings(oracle: LabelOracle, noise: float, draw: random.Random) -> list[list[Message]]:
    """One conversation per known instance text that is not held out. A share `noise` of the labels is replaced by
    random ones: the knob for a weaker reader."""
    labels = sorted(set(oracle.label_of.values()))
    readings = []
    for text, label in sorted(oracle.label_of.items()):
        if not is_held_out(text):
            shown = draw.choice(labels) if draw.random() < noise else label
            readings.append(conversation(f"Label: {text}", shown))
    return readings


def held_out_readings(oracle: LabelOracle) -> list[list[Message]]:
    """One conversation with the right label per known instance text that is held out."""
    return [conversation(f"Label: {t}", label) for t, label in sorted(oracle.label_of.items()) if is_held_out(t)]


def context_readings(contexts: Iterable[str], oracle: LabelOracle, draw: random.Random) -> list[list[Message]]:
    """Sub-calls with a whole short context. The answers are right; a small model learns their form and little more."""
    readings = []
    for context in contexts:
        label = draw.choice(sorted(set(oracle.label_of.values())))
        prompt = f"{draw.choice(['Label', f'Count {label}'])}: {context}"
        readings.append(conversation(prompt, oracle.answer(prompt)))
    return readings
