"""Installed packages under other names: golds found a second time by importing them, what is asked and what is not."""

from __future__ import annotations

import platform
import random
import re
import textwrap
from pathlib import Path

import pytest

from codeqa_rlm import CodeQA
from codeqa_rlm.analysis import analyze
from codeqa_rlm.baselines import BASELINES
from codeqa_rlm.installed import FAMILIES_HERE, STANDARD_LIBRARY
from codeqa_rlm.source import read_source
from codeqa_rlm.words import STANDARD
from rlm_env.authoring.draw import Draw
from rlm_env.rollout import Rollout
from rlm_env.task import Task

SMALL = ["json", "http", "configparser", "concurrent", "wsgiref"]


@pytest.fixture(scope="module")
def small() -> tuple[CodeQA, list[Task]]:
    env = CodeQA(dataset="installed", packages=SMALL)
    return env, env.tasks("eval").take(3 * len(FAMILIES_HERE))


def test_importing_the_renamed_package_finds_exactly_the_gold(small, recount):
    _, tasks = small
    found = recount(((t.context, t.question) for t in tasks), runs=False)
    for task, letters in zip(tasks, found, strict=True):
        assert letters == [task.gold], (task.info["source"], task.question)


@pytest.mark.slow
def test_every_package_of_the_standard_library_that_is_asked_about_imports_under_other_names(recount):
    for split in STANDARD_LIBRARY:
        tasks = CodeQA(dataset="installed", seed=1).tasks(split).take(40)
        assert {task.info["source"]["package"] for task in tasks} <= set(STANDARD_LIBRARY[split])
        found = recount(((t.context, t.question) for t in tasks), runs=False)
        assert found == [[task.gold] for task in tasks]


def test_splits_share_no_package():
    assert not set(STANDARD_LIBRARY["train"]) & set(STANDARD_LIBRARY["eval"])


def test_perfect_scores_one_empty_zero_another_gold_zero(small):
    env, tasks = small
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        assert env.score(task, Rollout.from_answer(task, env.perfect_answer(task))).value == 1.0
        assert env.score(task, Rollout.from_answer(task, "")).value == 0.0
        if other.gold != task.gold:
            assert env.score(task, Rollout.from_answer(task, env.perfect_answer(other))).value == 0.0


def test_no_letter_and_no_length_gives_the_answer_away():
    env = CodeQA(dataset="installed", packages=SMALL, seed=2)
    tasks = env.tasks("train").take(280)
    margin = 4 * (0.25 * 0.75 / len(tasks)) ** 0.5
    for baseline in ("random letter", "majority letter", "longest option", "shortest option"):
        scores = [env.score(t, Rollout.from_answer(t, BASELINES[baseline](t))).value for t in tasks]
        assert sum(scores) / len(scores) == pytest.approx(0.25, abs=margin), baseline


def test_names_are_other_ones_in_every_task_and_stand_in_the_context(small):
    _, tasks = small
    for task in tasks:
        source = task.info["source"]
        analysis = analyze(read_source(source["package"]))
        text = "\n".join(task.context.values())
        words = set(re.findall(r"\w+", text))
        gone = {name for name, kind in analysis.kinds.items() if kind in ("type", "fault", "function")}
        assert gone
        assert not gone & words
        for dotted in re.findall(r"`([\w.]+)`", task.question):
            assert set(dotted.split(".")) - {name for path in task.context for name in re.split(r"[/.]", path)} <= words
        assert all(source["package"] not in path.split("/")[0] for path in task.context)
    roots = {path.split("/")[0] for task in tasks for path in task.context}
    assert len(roots) > 0.8 * len(tasks)


def test_what_the_items_depend_on_is_recorded(small):
    _, tasks = small
    for task in tasks:
        source = task.info["source"]
        assert source["python"] == platform.python_version()
        assert re.fullmatch(r"[0-9a-f]{16}", source["sha256"])
    again = CodeQA(dataset="installed", packages=SMALL).tasks("eval").take(5)
    assert again == tasks[:5]


def test_the_order_of_files_changes_no_answer(small, recount):
    _, tasks = small
    shuffled = []
    for task in tasks[:7]:
        files = list(task.context.items())
        random.Random(0).shuffle(files)
        shuffled.append((dict(files), task.question))
    assert recount(shuffled, runs=False) == [[task.gold] for task in tasks[:7]]


PACKAGE = {
    "__init__.py": "",
    "shapes.py": """
        import enum
        from .faults import ShapeFault as Fault

        class Base:
            def area_of(self, scale_by=4): return scale_by
            def render_it(self): return self.area_of()

        class Round(Base):
            def area_of(self, scale_by=5): return 2

        @staticmethod
        class Decorated(Base): ...

        class Kind(enum.Enum):
            ONE = 1

        class Twice: ...
        class Twice: ...

        if Base:
            class Conditional(Base): ...

        def check_shape(shape, limit_to=70):
            if shape: raise Fault("no")
            return measure_it(shape)

        def measure_it(shape): return shape

        def names_only(shape): return measure_it

        def comments_only(shape):
            # measure_it(shape)
            return shape
    """,
    "faults.py": """
        class ShapeFault(ValueError): ...
        def raise_it(): raise ShapeFault
    """,
    "elsewhere.py": "import no_such_module_of_another_system\nclass Foreign: ...\n",
}


def test_only_what_cannot_be_misread_becomes_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "shape_package"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    analysis = analyze(read_source("shape_package"))
    same = {name: name for name in analysis.kinds}
    facts = analysis.facts(same)
    shapes = "shape_package.shapes"
    assert set(facts.order) == {f"{shapes}.Base", f"{shapes}.Round", "shape_package.faults.ShapeFault"}
    assert facts.order[f"{shapes}.Round"] == [f"{shapes}.Round", f"{shapes}.Base", "object"]
    fault = "shape_package.faults.ShapeFault"
    assert facts.order[fault] == [fault, "ValueError", "Exception", "BaseException", "object"]
    assert facts.defaults[f"{shapes}.check_shape"] == {"limit_to": "70"}
    assert facts.levels(f"{shapes}.check_shape", 1)[1] == {f"{shapes}.measure_it"}
    assert facts.levels(f"{shapes}.names_only", 1)[1] == frozenset()
    assert f"{shapes}.measure_it" in facts.mentions[f"{shapes}.names_only"]
    assert f"{shapes}.measure_it" not in facts.mentions[f"{shapes}.comments_only"]
    assert facts.raises["shape_package.faults.raise_it"] == {fault}
    assert analysis.renamed(same)["shape_package/shapes.py"] == (folder / "shapes.py").read_text()
    names = analysis.new_names(STANDARD, Draw(0))
    assert f"# {names['measure_it']}(" in "\n".join(analysis.renamed(names).values())


def test_a_package_that_carries_no_question_is_named():
    with pytest.raises(ValueError, match="packages: none of this carries a question of the family 'order'"):
        CodeQA(dataset="installed", packages="this", families="order").tasks("eval").take(1)
