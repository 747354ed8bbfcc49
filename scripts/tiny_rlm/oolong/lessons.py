"""The lessons of `oolong-rlm` in its easy vocabulary.

The vocabulary's 256 lines are the same in both splits; which of them a context holds, its users, dates and counts are
not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from rlm_env.messages import Message
from rlm_env.task import Task
from tiny_rlm.lessons import Lessons, Plan
from tiny_rlm.oolong.questions import read_question
from tiny_rlm.oolong.reading import LabelOracle, context_readings, label_readings, learn_labels
from tiny_rlm.oolong.teachers import BATCHING, STRATEGIES, make_plan

LENGTHS = [120, 150, 200, 250, 300, 350, 400]
"""Of the contexts, in characters / 4: 5 to 23 lines."""
FAMILIES = [
    *("most_common", "least_common", "compare", "count", "user_label", "users_count", "month_count"),
    *("users_most_common", "users_least_common", "users_compare"),
]
"""The easy families, and others that select a user: numbers are the hardest to copy."""
ALL_LINES, HARD_CONTEXTS, WHOLE_CONTEXTS = 40, 60, 100


class OolongLessons(Lessons):
    """Count and compare labels of lines. The sub-LLM reads one line, or badly a whole context."""

    environment = "oolong-rlm"
    options: ClassVar[Mapping[str, Any]] = {"vocabulary": "easy", "lengths": LENGTHS, "families": FAMILIES}
    strategies: ClassVar[Mapping[str, float]] = {name: share for name, (_, share) in STRATEGIES.items()}
    batching = BATCHING

    @cached_property
    def oracle(self) -> LabelOracle:
        """Knows every line of the vocabulary."""
        return learn_labels(ALL_LINES, lengths=4000)

    def plan(self, task: Task, strategy: str, draw: random.Random) -> Plan:
        return make_plan(read_question(task.question), strategy, draw)

    def sub(self, tasks: Sequence[Task]) -> LabelOracle:
        return self.oracle

    def readings(self, tasks: Sequence[Task], draw: random.Random) -> list[list[Message]]:
        """Every line, harder wordings (which the environment uses if its option `leak` is below 1), whole contexts."""
        harder = learn_labels(HARD_CONTEXTS, lengths=800, leak=0.0)
        whole = context_readings([task.context for task in tasks[:WHOLE_CONTEXTS]], self.oracle, draw)
        return label_readings(self.oracle, 0.0, draw) + label_readings(harder, 0.0, draw) + whole
