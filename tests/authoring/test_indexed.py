"""Any task of a generated split is made alone, and is the one that stands at its place."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from rlm_env.registry import find_environment

GENERATED: list[tuple[str, dict[str, Any]]] = [
    ("codeqa-rlm", {"profile": "tiny"}),
    ("codeqa-rlm", {"dataset": "installed", "packages": ["argparse"]}),
    ("deepdive-rlm", {"profile": "tiny"}),
    ("math-python-rlm", {"profile": "tiny"}),
    ("needle-rlm", {"profile": "tiny"}),
    ("oolong-rlm", {"vocabulary": "easy", "lengths": [512, 300]}),
    ("oolong-rlm", {"vocabulary": "easy", "lengths": 512, "questions_per_context": 3}),
    ("oolong-pairs-rlm", {"lengths": 1024}),
    ("verbatim-copy-rlm", {"profile": "tiny"}),
]


@pytest.mark.parametrize(("name", "options"), GENERATED)
def test_tasks_by_their_place(name, options):
    environment = find_environment(name, num_tasks=6, **options)
    assert environment.makes_any_task
    tasks = environment.tasks("train").take(6)
    assert [environment.task("train", index) for index in (5, 0, 4)] == [tasks[5], tasks[0], tasks[4]]
    assert pickle.loads(pickle.dumps(environment.task("train", 3))) == tasks[3]
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"task {index} of 'train'"):
            environment.task("train", index)
    assert find_environment(name, **options).task("eval", 5000).id.startswith("eval-")
