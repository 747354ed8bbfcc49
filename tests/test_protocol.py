"""Code extraction and the words for the model."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.context import describe_context
from rlm_env.messages import Completion
from rlm_env.protocol import Cell, Problem, extract_cells, observation_text, user_message
from rlm_env.repl import StepResult
from rlm_env.task import Task


def cells(text: str, finish_reason: str = "stop") -> list[str]:
    return [
        item.code for item in extract_cells(Completion(text, finish_reason=finish_reason)) if isinstance(item, Cell)
    ]


def problems(text: str, finish_reason: str = "stop") -> list[str]:
    return [
        item.text for item in extract_cells(Completion(text, finish_reason=finish_reason)) if isinstance(item, Problem)
    ]


@pytest.mark.parametrize("label", ["repl", "python", "py", "Python", "python3", ""])
def test_every_usual_fence_is_code(label):
    assert cells(f"I look first.\n```{label}\nprint(1)\n```\nThen more.") == ["print(1)"]


def test_all_labeled_blocks_run_in_order_and_other_blocks_do_not():
    text = "```json\n{}\n```\n```repl\na = 1\n```\n```\nnot code\n```\n```python\nb = 2\n```"
    assert cells(text) == ["a = 1", "b = 2"]


def test_a_fence_inside_a_string_does_not_end_the_block():
    code = 'p = """Answer as\n```json\n{"a": 1}\n```\nonly."""\nprint(p)'
    assert cells(f"```repl\n{code}\n```\ndone") == [code]
    bare = 's = """\n```\nx\n```\n"""'
    assert cells(f"```python\n{bare}\n```") == [bare]


def test_a_broken_block_does_not_swallow_the_next_one():
    assert cells("```repl\nprint((\n```\ntext\n```repl\nprint(2)\n```") == ["print((", "print(2)"]


def test_longer_fences_hold_shorter_ones():
    assert cells("````repl\nx = '''\n```\n'''\n````") == ["x = '''\n```\n'''"]


def test_indented_blocks_are_dedented():
    assert cells("1. first\n   ```python\n   if True:\n       x = 1\n   ```") == ["if True:\n    x = 1"]


def test_blanks_inside_of_strings_survive():
    code = 'text = """a  \n   \n\t\nb"""'
    assert cells(f"```repl\n{code}\n```") == [code]
    assert cells(f"```repl\n{code}\nprint(text)```") == [f"{code}\nprint(text)"]


def test_a_block_cut_off_by_the_token_limit_runs_if_it_is_whole_and_is_told_otherwise():
    assert cells("```repl\nprint(1)", "length") == ["print(1)"]
    assert cells("```repl\nprint((1,", "length") == []
    assert "cut off" in problems("```repl\nprint((1,", "length")[0]
    assert cells("```repl\nprint((1,", "stop") == ["print((1,"], "not cut off: the model shall see its SyntaxError"


def test_a_fence_closed_on_the_last_line_of_code():
    assert cells('```repl\nanswer["ready"] = True```') == ['answer["ready"] = True']


def test_top_level_await_counts_as_whole():
    code = 'r = await f("""\n```\n""")'
    assert cells(f"```repl\n{code}\n```") == [code]


def test_thinking_is_no_code():
    assert cells("<think>\n```repl\nx\n```\n</think>\n```repl\ny = 1\n```") == ["y = 1"]
    assert problems("<think>\n```repl\nx", "length")


@pytest.mark.parametrize(
    ("text", "finish", "why"),
    [
        ("The answer is 4.", "stop", "no code"),
        ("", "stop", "no code"),
        ("Let me think about", "length", "cut off"),
        ("```repl\n\n```", "stop", "empty"),
        ("```json\n{}\n```", "stop", "no code"),
    ],
)
def test_nothing_to_run_is_told_with_the_reason(text, finish, why):
    assert cells(text, finish) == []
    assert why in problems(text, finish)[0]


def tool_call(arguments, name="python_repl", id="call-1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tool_calls_win_over_fences_and_keep_their_ids():
    calls = [tool_call(json.dumps({"code": "a = 1"})), tool_call(json.dumps({"code": "b = 2"}), id="call-2")]
    found = extract_cells(Completion("```repl\nc = 3\n```", tool_calls=calls))
    assert found == [Cell("a = 1", "call-1"), Cell("b = 2", "call-2")]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (tool_call('{"code": "x = 1'), "not valid JSON"),
        (tool_call("{}"), "needs"),
        (tool_call('{"code": 5}'), "needs"),
        (tool_call('{"code": " "}'), "needs"),
        (tool_call("{}", name="search"), "no tool 'search'"),
        ({"id": "call-1"}, "no tool None"),
    ],
)
def test_a_bad_tool_call_is_told_with_its_id(call, why):
    (problem,) = extract_cells(Completion("", tool_calls=[call]))
    assert isinstance(problem, Problem)
    assert problem.tool_call_id == "call-1"
    assert why in problem.text


@given(st.text(alphabet=st.sampled_from("`\nrepl python\"' ()=1#"), max_size=200), st.sampled_from(["stop", "length"]))
def test_extraction_is_total_and_never_silent(text, finish):
    assert extract_cells(Completion(text, finish_reason=finish))


@given(st.text(alphabet=st.characters(blacklist_characters="`\r"), min_size=1).filter(lambda s: s.strip()))
def test_code_comes_out_as_it_went_in(code):
    import textwrap

    indented = next(line for line in code.split("\n") if line.strip()).startswith((" ", "\t"))
    assert cells(f"```repl\n{code}\n```") == [textwrap.dedent(code) if indented else code]


def test_a_reply_of_only_fences_is_cheap():
    assert extract_cells(Completion("```\n" * 20_000))


def test_the_context_is_described_and_never_shown(tmp_path):
    (tmp_path / "a.txt").write_text("secret")
    for context in ("secret\nline", b"secret", ["secret"], {"k": "secret"}, tmp_path, tmp_path / "a.txt"):
        text = user_message(Task("Q?", context))
        assert "Q?" in text
        assert "secret" not in text
        assert describe_context(context) in text
    assert describe_context("a\nb") == "str, 3 characters, 2 lines"
    assert "Context" not in user_message(Task("Q?"))


@given(st.text(max_size=700), st.integers(200, 400))
def test_an_observation_keeps_head_and_tail_and_tells_the_length(text, limit):
    whole = observation_text(StepResult(output=text), 10_000)
    short = observation_text(StepResult(output=text), limit)
    assert len(short) <= limit
    if len(whole) <= limit:
        assert short == whole
    else:
        assert f"of {len(whole):,} characters omitted" in short
        assert short.startswith(whole[: limit // 4])
        assert short.endswith(whole[-(limit // 4) :])


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (StepResult(output="1\n"), ["Output:\n1"]),
        (StepResult(), ["Output: (nothing was printed)"]),
        (StepResult(error="ValueError: no"), ["Output: (nothing was printed)", "Error:\nValueError: no"]),
        (
            StepResult(error="TimeoutError: it ran longer than 2 s", timed_out=True, seconds=2.04),
            ["The cell was stopped at its time limit, after 2.0 s of its own time.", "Your variables are kept."],
        ),
        (
            StepResult(error="The REPL's process was killed.", timed_out=True, state_lost=True, seconds=4),
            ["The REPL had to be started afresh: `context` is there again, your other variables are gone."],
        ),
    ],
)
def test_the_words_for_the_end_of_a_cell_are_said_once(step, told):
    text = observation_text(step, 1000)
    for words in told:
        assert text.count(words) == 1
    assert text.count("variables") == (1 if step.timed_out or step.state_lost else 0)
