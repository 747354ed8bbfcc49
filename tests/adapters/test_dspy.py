"""Our REPL as dspy's interpreter: alone, and under the real `dspy.RLM` with an LM that answers from a list."""

import pytest

dspy = pytest.importorskip("dspy", reason="needs dspy: pip install dspy==3.4.1")

from dspy.primitives.code_interpreter import (  # noqa: E402
    CodeExecutionError,
    CodeInterpreter,
    CodeInterpreterError,
    FinalOutput,
)

from rlm_env.adapters.dspy_interpreter import RLMInterpreter  # noqa: E402
from rlm_env.repl import ReplConfig  # noqa: E402

PLAIN = ReplConfig(preload=())


@pytest.fixture
def interpreter():
    with RLMInterpreter({"double": lambda x: 2 * x}, config=PLAIN, timeout=5) as interpreter:
        yield interpreter


def test_state_tools_and_output(interpreter):
    assert isinstance(interpreter, CodeInterpreter)
    assert interpreter.execute("x = double(4)\nprint(x)", {"text": "spam"}) == "8\n"
    assert interpreter.execute("x + len(text)") == "12\n"
    assert interpreter.execute("y = 1") is None


def test_inputs_are_handed_over_once_and_code_may_change_them(interpreter):
    inputs = {"context": "a" * 1000, "n": 1}
    interpreter.execute("context = context[:3]", inputs)
    assert interpreter.execute("print(context, n)", inputs) == "aaa 1\n"
    assert interpreter.execute("print(len(context), n)", {"context": "new one", "n": 1}) == "7 1\n"


def test_inputs_arrive_as_they_are(interpreter):
    inputs = {
        "empty": "",
        "line": "\r\n\0é",
        "lone": "\ud800",
        "large": "é" * 3_000_000,
        "n": None,
        "rows": [{"a": 1.5}],
    }
    assert interpreter.execute("print(ascii([empty, line, lone, len(large), large[-1], n, rows]))", inputs) == (
        ascii(["", "\r\n\0é", "\ud800", 3_000_000, "é", None, [{"a": 1.5}]]) + "\n"
    )


def test_an_input_of_another_type_is_another_value(interpreter):
    assert [interpreter.execute("type(x).__name__", {"x": x}) for x in ("1", 1, True)] == [
        "'str'\n",
        "'int'\n",
        "'bool'\n",
    ]


def test_interpreters_of_one_configuration_share_the_warm_parent_and_nothing_else():
    with RLMInterpreter(config=PLAIN) as first, RLMInterpreter({"double": lambda x: 2 * x}, config=PLAIN) as second:
        first.execute("x = 1")
        parents = [i.execute("import os\nprint(os.getppid())") for i in (first, second)]
        assert parents[0] == parents[1]
        with pytest.raises(CodeExecutionError, match="NameError"):
            second.execute("print(x)")
        with pytest.raises(CodeExecutionError, match="NameError"):
            first.execute("double(1)")
        first.shutdown()
        assert second.execute("print(double(4))") == "8\n"


def test_a_tool_may_use_an_interpreter_of_its_own():
    def inner(depth):
        with RLMInterpreter({"inner": inner}, config=PLAIN) as interpreter:
            return int(interpreter.execute(f"print(1 + inner({depth - 1}) if {depth} else 0)"))

    assert inner(3) == 3


def test_submit_ends_the_code_and_the_session_goes_on(interpreter):
    assert interpreter.execute("SUBMIT(double(3))\nprint('never')") == FinalOutput({"output": 6})
    interpreter.output_fields = [{"name": "answer_text"}, {"name": "count"}]
    assert interpreter.execute("SUBMIT('x', 2)") == FinalOutput({"answer_text": "x", "count": 2})
    assert interpreter.execute("SUBMIT(count=[1], answer_text=None)") == FinalOutput(
        {"answer_text": None, "count": [1]}
    )
    with pytest.raises(CodeExecutionError, match="takes the fields answer_text, count"):
        interpreter.execute("SUBMIT(1)")
    assert interpreter.execute("print(double(1))") == "2\n"


def test_tools_that_come_later_replace_the_old_ones(interpreter):
    interpreter.execute("1")
    interpreter.tools.update(double=lambda x: 20 * x, greet=lambda name: {"hello": name})
    assert interpreter.execute("print(double(1), greet(name='Ann'))") == "20 {'hello': 'Ann'}\n"


def test_mistakes_of_the_code_leave_the_session_alive(interpreter):
    with pytest.raises(CodeExecutionError, match="ZeroDivisionError"):
        interpreter.execute("kept = 1\nprint('so far')\n1 / 0")
    with pytest.raises(SyntaxError):
        interpreter.execute("def f(:")
    interpreter.tools["fails"] = lambda: {}["missing"]
    with pytest.raises(CodeExecutionError, match="KeyError: 'missing'"):
        interpreter.execute("fails()")
    assert interpreter.execute("print(kept)") == "1\n"


def test_tools_can_be_called_from_threads(interpreter):
    code = "from concurrent.futures import ThreadPoolExecutor as Pool\n"
    assert interpreter.execute(code + "with Pool(4) as pool: print(sum(pool.map(double, range(8))))") == "56\n"


def test_a_process_that_dies_ends_the_session(interpreter):
    with pytest.raises(CodeInterpreterError):
        interpreter.execute("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(CodeInterpreterError, match="make a new interpreter"):
        interpreter.execute("1")


def test_after_shutdown_it_is_over():
    interpreter = RLMInterpreter(config=PLAIN)
    assert interpreter.execute("print(1)") == "1\n"
    interpreter.shutdown()
    interpreter.shutdown()
    with pytest.raises(CodeInterpreterError, match="shut down"):
        interpreter.execute("1")


@pytest.mark.parametrize(
    ("variables", "message"),
    [({"double": 1}, "function of the interpreter"), ({"not valid": 1}, "no name"), ({"x": {1}}, "no JSON value")],
)
def test_inputs_that_cannot_be_set_are_refused(interpreter, variables, message):
    with pytest.raises(CodeInterpreterError, match=message):
        interpreter.execute("1", variables)


class ScriptedLM(dspy.BaseLM):
    """Answers from a list, in the fields that dspy asks for; every other prompt is a question of a sub-LLM."""

    def __init__(self, *cells):
        super().__init__(model="scripted", cache=False)
        self.cells, self.asked = list(cells), []

    def forward(self, prompt=None, messages=None, **_):
        text = prompt or messages[-1]["content"]
        self.asked.append(text)
        if "[[ ## code ## ]]" in text or "`code`" in text:
            parts = ("reasoning", "next"), ("code", f"```python\n{self.cells.pop(0)}\n```"), ("completed", "")
            body = "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in parts)
        else:
            body = "spam"
        return _completion(body)


def _completion(text):
    from openai.types.chat import ChatCompletion

    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return ChatCompletion.model_validate(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    )


def test_dspy_rlm_runs_on_it():
    lm = ScriptedLM(
        "word = llm_query('which word?')\nprint(word, len(context))",
        "SUBMIT(answer=word + str(context.count(word)))",
    )
    rlm = dspy.RLM("context, question -> answer", interpreter_factory=lambda: RLMInterpreter(config=PLAIN), max_iters=4)
    with dspy.context(lm=lm):
        result = rlm(context="spam ham spam", question="How often?")
    assert result.answer == "spam2"
    assert any("which word?" in text for text in lm.asked)


def test_after_a_run_whose_process_died_the_next_begins_anew():
    lm = ScriptedLM("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "SUBMIT(answer=context)")
    rlm = dspy.RLM("context, question -> answer", interpreter_factory=lambda: RLMInterpreter(config=PLAIN), max_iters=4)
    with dspy.context(lm=lm):
        with pytest.raises(CodeInterpreterError):
            rlm(context="spam", question="?")
        assert rlm(context="ham", question="?").answer == "ham"
