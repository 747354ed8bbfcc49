"""tiny-rlm's lessons of Oolong: questions, teachers in the real REPL, and the scripted reader."""

from __future__ import annotations

import random

import pytest

from tiny_rlm.oolong.lessons import OolongLessons
from tiny_rlm.oolong.questions import read_question
from tiny_rlm.profile import make_environment
from tiny_rlm.sessions import record_sessions

LESSONS = OolongLessons()


@pytest.mark.slow
async def test_every_teacher_ends_and_the_sound_ones_are_right():
    async with make_environment(LESSONS, 0, lengths=[150, 300]) as env:
        by_family = {task.info["family"]: task for task in env.tasks("train").take(80)}
        assert len(by_family) == 10
        tasks = list(by_family.values())
        for name in LESSONS.strategies:
            played = await record_sessions(env, LESSONS, tasks, 0, strategy=name)
            assert len(played) == len(tasks)  # each has ended with a ready answer
            if name.startswith(("sound", "look_then_sound")):
                assert [session.score for session in played] == [1.0] * len(tasks), name


def test_an_unknown_question_is_refused():
    with pytest.raises(ValueError, match="no teacher"):
        read_question("In the above data, which date is represented most often?")


def test_its_sub_llm_knows_every_line_of_the_vocabulary():
    env = make_environment(LESSONS, 3, lengths=[400])
    for task in env.tasks("eval").take(20):
        lines = [line.split("Instance: ")[1] for line in task.context.split("\n") if "Instance: " in line]
        assert set(lines) <= LESSONS.oracle.label_of.keys()


def test_readings_are_labels_of_lines_and_of_contexts():
    tasks = make_environment(LESSONS, 0).tasks("train").take(3)
    readings = LESSONS.readings(tasks, random.Random(0))
    first = [messages[0]["content"].split(" ")[0] for messages in readings]
    assert len(readings) > 1000
    assert set(first) <= {"Label:", "Count"}
    assert {messages[1]["content"] for messages in readings if messages[0]["content"].startswith("Label: ")} == {
        *("food", "music", "sport", "weather")
    }
