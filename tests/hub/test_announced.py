"""Places at which a right answer is announced in a text, and texts in which nothing of the kind is."""

import json
import pickle

import pytest

from rlm_env.hub.announced import announcements
from rlm_env.hub.contexts import gold_places
from rlm_env.task import Task

NAMES = ("ada", "ben", "cleo")
AROUND = "one 17\ntwo 18\n{}\nend"


@pytest.mark.parametrize(
    ("announcing", "place"),
    [
        ("Answer: 42", "the line 'answer:'"),
        ("**Answer:** 42", "the line 'answer:'"),
        ("- answer = '42'.", "the line 'answer:'"),
        ("total: 42", "the line 'total:'"),
        ("The answer is 42, of course", "what follows 'answer'"),
        ("<answer>42</answer>", "what follows 'answer'"),
        ("so final_answer=42 it is", "what follows 'answer'"),
        (json.dumps({"expected_output": "42", "n": 1}), "what follows 'expected'"),
        (repr({"gold": 42, "n": 1}), "what follows 'gold'"),
        (pickle.dumps({"answer": "42", "n": 1}).decode("utf-8", "replace"), "what follows 'answer'"),
    ],
)
def test_an_answer_is_announced_in_many_ways(announcing, place):
    assert set(announcements(AROUND.format(announcing), ["42"])) == {place}


@pytest.mark.parametrize(
    "text",
    [
        "there are 42 of them",
        "Answer: 142",
        "label: 17\nlabel: 42",
        "Please answer with one of 41, 42 and 43.",
        "answer" + "?" * 90 + "42",
    ],
)
def test_what_announces_other_things_too_or_nothing_is_no_place(text):
    assert set(announcements(AROUND.replace("{}", text), ["42"])) == set()


def places(*contexts) -> list[str]:
    tasks = [Task("?", context, gold, gold) for context, gold in zip(contexts, NAMES, strict=True)]
    return [finding.where for finding in gold_places(tasks, {})]


def test_keys_marks_and_names_of_files_are_places_too(tmp_path):
    assert places(*({name: 1, "x": 2} for name in NAMES)) == ["the first key of context"]
    rows = ([{"name": "dov", "right": False}] * n + [{"name": name, "right": True}] for n, name in enumerate(NAMES))
    assert "context[...]['name'] where 'right' is true" in places(*rows)
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text("a text")
        (tmp_path / name / "zoe.txt").write_text("a text")
    assert places(*(tmp_path / name for name in NAMES)) == ["the name of the first file of context"]
    assert places({"ada": 1, "ben": 1}, {"ada": 1, "ben": 1}, {"cleo": 1, "ben": 1}) == []
