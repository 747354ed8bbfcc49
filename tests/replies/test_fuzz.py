"""Whatever a model writes, its reply is read: always something to run or a reason, and never slowly."""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.messages import Completion
from rlm_env.protocol import Cell, extract_cells
from rlm_env.replies import visible_text
from rlm_env.tools.box import read_calls
from tests.replies.test_forms import FORMS

PIECES = [
    *("```", "~~~", "```python\n", "```repl\n", "```json\n", "```tool\n", "\n```\n", "> ```py\n", "`", "````"),
    *("<think>", "</think>", "<thinking>", "[THINK]", "[/THINK]", "<|begin_of_thought|>", "assistantfinal", "analysis"),
    *("<tool_call>", "</tool_call>", "<function=python_repl>", "<parameter=code>", "</parameter>", "</function>"),
    *(
        "[TOOL_CALLS]",
        "functools[",
        "python_repl(code=",
        "``` and then ```py\n",
        "[ARGS]",
        "<|python_tag|>",
        "<|channel|>",
        "<|message|>",
        "<|call|>",
        "to=functions.python_repl ",
    ),
    *("<code>\n", "</code>", "<execute>", "<arg_key>", "</arg_key>", "<arg_value>", "<invoke name=python_repl>"),
    *("Action: python_repl\nAction Input: ", "✿FUNCTION✿: x", "✿ARGS✿:", "python_repl", "FINAL(", ")", "FINAL_VAR(x)"),
    *('{"name": "python_repl", ', '"arguments": ', '{"code": ', '"print(1)"', "}", "{", "[", "]", ",", ":", '"', "'"),
    *("print(1)", "x = 1", "\n", " ", "\t", "'''", '"""', "(", "\\", "\ud800", "\0", "é", "text", "\u2028", "\r\n"),
]
HOSTILE = [
    *("FINAL(a\n", "x=1```\n", "<tool_call>x<arg_key>", "to=x json", "[TOOL_CALLS]a[ARGS]{", "<code>\nx</cod>"),
    *("```python x``` ", "``` x ```py\n", "```py\n'``` x\n", "<function=x><parameter=code>'", "<code>'</code>"),
    *('python_repl("""x)\n', '<|python_tag|>python_repl.call(code="', "<tool_call>x<arg_key>a</arg_key><arg_value>'"),
    "functools[{",
]
SECONDS = float(os.environ.get("RLM_ENV_FUZZ_SECONDS", "20"))
"""Of CPU: what others do on the machine costs no replies."""


def check(text: str, finish: str, *, use_tool: bool) -> None:
    completion = Completion(text, finish_reason=finish)
    found = extract_cells(completion, use_tool=use_tool)
    assert found
    assert all(item.code.strip() if isinstance(item, Cell) else item.text for item in found)
    assert completion.text == text
    visible_text(completion)
    read_calls(completion, native=use_tool, names={"python_repl"})
    call = {"id": "1", "function": {"name": "python_repl", "arguments": text}}
    (item,) = extract_cells(Completion("", tool_calls=[call]))
    assert isinstance(item, Cell) or item.text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=25), st.sampled_from(["stop", "length"]))
def test_every_reply_is_read(pieces, finish):
    check("".join(pieces), finish, use_tool=False)


@pytest.mark.parametrize("piece", [*PIECES, *HOSTILE])
def test_hostile_repetition_is_cheap(piece):
    start = time.process_time()
    assert extract_cells(Completion(piece * 4000))
    assert time.process_time() - start < 5


@pytest.mark.slow
def test_replies_that_are_cut_spliced_and_repeated_are_read():
    """For `RLM_ENV_FUZZ_SECONDS`: forms that models write, cut, spliced and mixed with pieces of others."""
    seed = random.randrange(2**32)
    draw, end, count = random.Random(seed), time.process_time() + SECONDS, 0
    forms = list(FORMS.values())
    while time.process_time() < end:
        text = ""
        for _ in range(draw.randint(1, 5)):
            form = draw.choice(forms)
            start = draw.randrange(len(form)) if draw.random() < 0.3 else 0
            text += form[start : draw.randint(start, len(form)) if draw.random() < 0.3 else len(form)]
            text += draw.choice(["", "\n", *PIECES]) * draw.choice([1, 1, 1, 50])
        before = time.process_time()
        try:
            check(text, draw.choice(["stop", "length"]), use_tool=draw.random() < 0.5)
        except Exception as error:
            raise AssertionError(f"seed {seed}, reply {count}: {text!r}") from error
        assert time.process_time() - before < 2, f"seed {seed}, reply {count}: {text!r}"
        count += 1
    assert count > 100
