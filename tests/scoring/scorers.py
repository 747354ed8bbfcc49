"""Environments whose scorers behave well or badly, in a module that a scorer process can import."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rlm_env.environment import Environment, ScoreLimits
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks


class Closing:
    """Must not be copied: a copy would end what it holds."""

    def __del__(self) -> None:
        pass


class Scorer(Environment):
    """`score` does what the answer says. Holds what cannot be pickled, as environments do."""

    score_limits = ScoreLimits(cpu_seconds=1.0, wall_seconds=6.0, memory_bytes=2**28)

    def __init__(self, seed: int = 0) -> None:
        self.right = "right"
        self.check: Callable[[str], bool] = lambda answer: answer == self.right
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=print)
        self.file = Closing()

    def tasks(self, split: Split) -> Tasks:
        return Tasks(lambda: iter([Task("what?", "the context", gold="right", id="t")]), split)

    def score(self, task: Task, rollout: Rollout) -> Score | float:
        return getattr(self, rollout.answer.partition(" ")[0])(task, rollout)

    def right_or_wrong(self, task: Task, rollout: Rollout) -> float:
        with self.lock:
            return float(rollout.answer.split()[1] == self.right)

    def pid(self, task: Task, rollout: Rollout) -> Score:
        return Score(1.0, {"pid": float(os.getpid()), "torch": float("torch" in sys.modules)})

    def parts(self, task: Task, rollout: Rollout) -> Score:
        replace(task, question="another")
        return Score(1.0, {"context": float(len(str(task.context))), "turns": float(len(rollout.turns))})

    def computes(self, task: Task, rollout: Rollout) -> float:
        while True:
            pass

    def computes_in_c(self, task: Task, rollout: Rollout) -> float:
        return float(9**9**9 > 0)

    def sleeps(self, task: Task, rollout: Rollout) -> float:
        time.sleep(float(rollout.answer.split()[1]))
        return 1.0

    def starts_a_process(self, task: Task, rollout: Rollout) -> float:
        with open(rollout.answer.split()[1], "w", encoding="ascii") as told:
            told.write(str(subprocess.Popen(["sleep", "1000"]).pid))
        time.sleep(1000)
        return 1.0

    def eats_memory(self, task: Task, rollout: Rollout) -> float:
        return float(len(bytearray(2**30)) > 0)

    def exits(self, task: Task, rollout: Rollout) -> float:
        os._exit(3)

    def raises(self, task: Task, rollout: Rollout) -> float:
        raise KeyError("missing key")

    def raises_oddly(self, task: Task, rollout: Rollout) -> float:
        raise OddError(1, 2)

    def uses_lambda(self, task: Task, rollout: Rollout) -> float:
        try:
            return float(self.check(rollout.answer.split()[1]))
        except Exception:
            return 0.0

    def hides_it(self, task: Task, rollout: Rollout) -> float:
        try:
            return float(self.check(rollout.answer.split()[1]))
        except BaseException:
            return 0.0

    def asks_its_kind(self, task: Task, rollout: Rollout) -> float:
        return float(isinstance(self.file, Closing))

    def outside(self, task: Task, rollout: Rollout) -> float:
        return 2.0

    def prints(self, task: Task, rollout: Rollout) -> float:
        print("from the scorer")
        return 1.0


class OddError(Exception):
    """Cannot be made again from what pickle keeps of it."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


class InThread(Scorer):
    score_in_process = True


class Slotted(Environment):
    """No weak references, no hash."""

    __slots__ = ("name_of_gold",)

    def __eq__(self, other: object) -> bool:
        return self is other

    def tasks(self, split: Split) -> list[Task]:
        return []

    def score(self, task: Task, rollout: Rollout) -> float:
        return 1.0


class Large(Environment):
    """Takes long to pickle, and fills itself as tasks are read."""

    def __init__(self) -> None:
        self.golds: dict[str, Any] = {str(i): {"gold": [i]} for i in range(60_000)}

    def tasks(self, split: Split) -> list[Task]:
        return []

    def score(self, task: Task, rollout: Rollout) -> float:
        return float(self.golds[task.id]["gold"] == [int(rollout.answer)])
