"""The `answer` variable in every form that models write it."""

import pytest

from rlm_env.repl import Repl, ReplConfig, ReplPool
from tests.repl.conftest import str_of


@pytest.mark.parametrize(
    ("code", "content", "ready"),
    [
        ("answer['content'] = 'a'", "a", False),
        ("answer['ready'] = True; answer['content'] = 'late'", "late", True),
        ("answer.update(content='b', ready=True)", "b", True),
        ("answer |= {'content': 'c', 'ready': True}", "c", True),
        ("answer = {'content': 'd', 'ready': True}", "d", True),
        ("answer = {'ready': True}", "before", True),
        ("answer = {'content': 'e'}", "e", False),
        ("answer = 'text'", "text", False),
        ("answer = 42", "42", False),
        ("answer = None", "before", False),
        ("answer = ['x', 1]", '["x", 1]', False),
        ("def answer(): pass", "before", False),
        ("import math as answer", "before", False),
        ("del answer", "before", False),
        ("del answer['content']", "before", False),
        ("answer['content'] = 3.5", "3.5", False),
        ("answer['content'] = {'a': (1, None)}", '{"a": [1, null]}', False),
        ("answer['content'] = {'é'}", "{'é'}", False),
        ("answer['content'] = b'by\\xff'", "by\ufffd", False),
        ("answer['content'] = None", "before", False),
        ("answer['content'] = answer", "", False),
        ("a = []; a.append(a); answer['content'] = a", "[[...]]", False),
        ("answer['content'] = '\\ud800'", "\ufffd", False),
        ("answer['content'] = llm_batch(['fail'])[0]", "before", False),
        ("answer['ready'] = 'true'", "before", True),
        ("answer['ready'] = 'False'", "before", False),
        ("answer['ready'] = 1", "before", True),
        ("answer['ready'] = 0", "before", False),
        ("answer['ready'] = 'no'", "before", False),
        ("answer['ready'] = None", "before", False),
        ("from collections import defaultdict\nanswer = defaultdict(str, content='f', ready=True)", "f", True),
        ("from collections import UserDict\nanswer = UserDict(content='g', ready=True)", "g", True),
        ("from fractions import Fraction\nanswer['content'] = Fraction(1, 3)", "1/3", False),
        ("answer['content'] = 7**10000", str_of(7**10000), False),
        ("answer['content'] = [7**10000, 1]", f"[{str_of(7**10000)}, 1]", False),
        ("answer['content'] = {1: {2.5: None}}", '{"1": {"2.5": null}}', False),
        ("answer['content'] = {(1, 2): 3}", "{(1, 2): 3}", False),
        ("answer['content'] = float('nan')", "nan", False),
        ("answer['content'] = [1.5, float('nan'), (float('-inf'),)]", '[1.5, "nan", ["-inf"]]', False),
        (
            "answer['content'] = {'a': {float('inf'): 1, 2: 10**400}}",
            '{"a": {"inf": 1, "2": 1' + 400 * "0" + "}}",
            False,
        ),
        ("a = [float('nan')]; a.append(a); answer['content'] = a", "[nan, [...]]", False),
        ("class A:\n  def __str__(s): raise ValueError\nanswer['content'] = A()", None, False),
        ("class B:\n  def __bool__(s): raise ValueError\nanswer['ready'] = B()", "before", False),
    ],
)
async def test_forms(repl: Repl, code: str, content: str | None, ready: bool):
    await repl.run("answer['content'] = 'before'")
    step = await repl.run(code)
    assert step.error is None
    assert step.answer["ready"] is ready
    if code.endswith("= answer"):
        assert step.answer["content"].startswith("{'content': {...}")
    elif content is None:
        assert "cannot be shown" in step.answer["content"]
    else:
        assert step.answer["content"] == content
    after = await repl.run("answer['content'] = 'usable'; answer['ready'] = False; type(answer).__mro__[-2:]")
    assert after.answer == {"content": "usable", "ready": False}, after.error


async def test_a_failing_cell_still_answers(repl: Repl):
    step = await repl.run("answer['content'] = 'x'; answer['ready'] = True\n1 / 0")
    assert step.answer == {"content": "x", "ready": True}
    assert "ZeroDivisionError" in step.error


async def test_unchanged_answers_stay(repl: Repl):
    await repl.run("answer['content'] = 'x' * 1000")
    for _ in range(2):
        assert (await repl.run("1")).answer["content"] == "x" * 1000
    assert (await repl.run("answer['content'] = 'y'")).answer["content"] == "y"


async def test_a_list_that_grows_in_place_is_read_again(repl: Repl):
    await repl.run("answer['content'] = [1]")
    assert (await repl.run("answer['content'].append(2)")).answer["content"] == "[1, 2]"


async def test_huge_answers_are_cut_and_say_so():
    async with ReplPool(ReplConfig(preload=(), max_answer_chars=1000)) as pool, pool.open() as repl:
        for code, cut in (
            ("answer['content'] = 'h' * 10**8", 10**8 - 1000),
            ("answer['content'] = ['h'] * 10**6", 1),  # at least: a list is not written out to its end
            ("answer['content'] = b'h' * 10**7", 3000),
        ):
            step = await repl.run(code, timeout=60)
            assert not step.state_lost, step.error
            assert 900 < len(step.answer["content"]) <= 1000
            assert step.answer_truncated_chars >= cut
        assert (await repl.run("answer['content'] = 'short'")).answer_truncated_chars == 0


async def test_a_cut_answer_stays_a_cut_one_when_its_process_dies():
    async with ReplPool(ReplConfig(preload=(), max_answer_chars=1000)) as pool, pool.open() as repl:
        for code in ("answer['content'] = 'h' * 1500", "1", "import os; os._exit(1)", "1"):
            assert (await repl.run(code)).answer_truncated_chars == 500


async def test_the_host_cuts_what_a_hostile_child_has_not_cut():
    async with ReplPool(ReplConfig(preload=(), max_answer_chars=1000)) as pool, pool.open() as repl:
        forged = (
            "import os, msgpack, struct\nfields = ['done', 1, '', 0, None, 'h' * 1500, True, -7]\n"
            "b = b''.join(map(msgpack.packb, fields))\nos.write(3, struct.pack('<I', len(b)) + b)"
        )
        step = await repl.run(forged)
        assert (len(step.answer["content"]), step.answer_truncated_chars) == (1000, 500)


async def test_reading_the_answer_is_under_the_clock(repl: Repl):
    step = await repl.run("class S:\n  def __str__(self):\n    while True: pass\nanswer['content'] = S()", timeout=0.3)
    assert step.timed_out
    assert not step.state_lost
    assert (await repl.run("answer['content'] = 'fine'")).answer["content"] == "fine"


async def test_error_messages_are_under_the_clock(repl: Repl):
    code = "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E"
    step = await repl.run(code, timeout=0.3)
    assert step.timed_out
    assert not step.state_lost


async def test_a_long_answer_outlives_its_process(repl: Repl):
    await repl.run("answer['content'] = 'long' * 200_000")
    step = await repl.run("import os; os._exit(1)")
    assert step.answer["content"] == "long" * 200_000
    step = await repl.run("len(answer['content']), answer['ready']")
    assert step.output == "(800000, False)\n"
    assert step.answer["content"] == "long" * 200_000


async def test_an_integer_beyond_the_limit_is_told_and_the_digits_stay_limited_in_cells():
    async with ReplPool(ReplConfig(preload=(), max_answer_chars=1000)) as pool, pool.open() as repl:
        assert "too large" in (await repl.run("answer['content'] = 1 << 10**7")).answer["content"]
        step = await repl.run("str(7**10000)")
        assert "Exceeds the limit" in step.error
